"""The server of a model of texts: predictions, attribution, errors, examples, specification and page."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import torch
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import project
from project.deploy.export import metadata, write
from project.interface import ClassTarget, DataDescription
from project.modules import Classifier
from project.texts import TextInput
from tests.browser import Browser, browser, chromium  # noqa: F401
from tests.serve.running import Response, Server, serving

pytestmark = pytest.mark.slow
TEXTS = ["", "a", "caf\u00e9 na\u00efve", "cafe\u0301", "打开灯", "\U0001f600", "+ " * 300, "好" * 100, " \x00+- "]


class Signs(torch.nn.Module):
    """Linear model of the bytes of a text, in which + and - decide."""

    def __init__(self, num_classes: int, inputs: TextInput) -> None:
        super().__init__()
        self.weight = torch.nn.Embedding(256, num_classes)
        self.weight.weight.data *= 0.02
        self.weight.weight.data[[ord("+"), ord("-")]] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        self.weight.weight.data[0] = 0

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Return logits for bytes (N, L)."""
        logits: torch.Tensor = self.weight(text.int()).sum(1)
        return logits


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an exported model, and a table of examples."""
    torch.manual_seed(0)
    classifier = Classifier(Signs)
    target = ClassTarget(["minus", "plus"], [1, 1], 0.6)
    classifier.set_data_description(DataDescription(TextInput(200), target, "made"))
    classifier.configure_model()
    folder = tmp_path_factory.mktemp("texts")
    write(folder / "model.onnx", classifier.eval(), metadata(classifier, Path("best.ckpt")), "onnx")
    (folder / "examples.csv").write_text("text\n+ one\n- two\n<b>three</b> ++\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(files: Path) -> Iterator[Server]:
    """A server with examples, in whose process torch cannot be imported."""
    with serving(files / "model.onnx", "--samples", str(files / "examples.csv")) as running:
        yield running


def ask(server: Server, content: Any, path: str = "/predict", kind: str = "application/json") -> Response:
    """Post JSON, or bytes as they are."""
    return server.ask(path, content if isinstance(content, bytes) else json.dumps(content).encode(), kind)


def test_predictions_equal_those_of_the_file(server: Server, files: Path) -> None:
    expected = project.load(files / "model.onnx").predict(TEXTS)
    components = server.ask("/openapi.json").json["components"]

    def check(found: Any, wanted: project.Prediction, is_long: bool) -> None:
        assert (found.pop("cut", False), found["class"]) == (is_long, wanted.label)
        assert found["confident"] is wanted.confident
        np.testing.assert_allclose([*found["probabilities"].values()], wanted.scores, rtol=0, atol=1e-6)

    several = ask(server, {"texts": TEXTS}).json
    jsonschema_rs.validate({"$ref": "#/components/schemas/Prediction", "components": components}, several)
    for number, text in enumerate(TEXTS):
        is_long = len(text.encode()) > 200
        one = ask(server, {"text": text}).json
        jsonschema_rs.validate({"$ref": "#/components/schemas/Prediction", "components": components}, one)
        check(one, expected[number], is_long)
        check(several["predictions"][number], expected[number], is_long)
    assert 'predicted_total{class_name="plus"}' in server.ask("/metrics").body.decode()
    info = server.ask("/model").json
    assert (info["kind"], info["names"]) == ("classes", ["minus", "plus"])
    assert info["input"] == "texts, up to 200 bytes" and info["samples"] == ["+ one", "- two", "<b>three</b> ++"]
    assert server.ask("/samples/2").json == {"text": "<b>three</b> ++"}


def test_attribution_is_of_the_words_that_decide(server: Server) -> None:
    for text, most in (("one +++ two - three", "+++ "), ("一+二", "+")):
        result = ask(server, {"text": text}, "/predict?attribution=true").json
        words = result["attribution"]["words"]
        assert "".join(word["text"] for word in words) == text and result["attribution"]["name"] == "plus"
        assert max(words, key=lambda word: word["drop"])["text"] == most
        assert result["attribution"]["lowest_probability"] < result["probability"]
    long = ask(server, {"text": "word " * 500}, "/predict?attribution=true").json["attribution"]["words"]
    assert 1 < len(long) <= 49 and "".join(word["text"] for word in long) == ("word " * 500).strip()
    assert ask(server, {"text": ""}, "/predict?attribution=true").json["attribution"]["words"] == [
        {"text": "", "drop": 0.0}
    ]


def test_invalid_requests_are_rejected(server: Server) -> None:
    for status, content in (
        *((400, body) for body in (b"", b"{", b"[" * 100_000, b'"a"', b"{}", b'{"text": "\xff"}')),
        *((400, body) for body in ({"text": 3}, {"text": ["a"]}, {"texts": "a"}, {"texts": [1]}, {"texts": []})),
        *((400, body) for body in ({"text": "a", "texts": []}, {"texts": ["a"] * 257}, b'{"text": "\\ud83d"}')),
        (413, bytes(10_000_001)),
    ):
        response = ask(server, content)
        assert (response.status, list(response.json)) == (status, ["detail"]), content[:20]
    assert ask(server, b"a", kind="text/plain").status == 415
    assert ask(server, {"texts": ["a"]}, "/predict?attribution=true").status == 400
    assert ask(server, {"texts": ["a"] * 256}).status == 200


@pytest.mark.browser
def test_the_page_on_wide_and_narrow_screens(browser: Browser, server: Server) -> None:  # noqa: F811
    browser.get(f"http://127.0.0.1:{server.port}")
    browser.wait_for("Classifies texts into 2 classes (minus, plus)")
    browser.find_element(By.ID, "text").send_keys("<i>good</i> +++ film", Keys.CONTROL, Keys.ENTER)
    browser.wait_for("without the strongest")
    assert browser.find_element(By.ID, "prediction").text == "plus"
    marked = browser.find_elements(By.CSS_SELECTOR, "#words mark")
    assert "+++" in [word.text.strip() for word in marked]
    assert browser.find_element(By.ID, "words").text == "<i>good</i> +++ film"
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.find_elements(By.CSS_SELECTOR, "#samples button")[1].click()
    browser.wait_for("Words with evidence for “minus”")
    assert browser.find_element(By.ID, "text").get_property("value") == "- two"
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(wider) <= 0
    browser.get(f"http://127.0.0.1:{server.port}/docs")
    assert browser.execute_script(wider) <= 0 and '{"texts": [' in browser.text()
    assert not browser.get_log("browser")
