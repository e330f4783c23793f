"""The server of models of labels and of values."""

import io
from pathlib import Path
from typing import Any

import jsonschema_rs  # a dependency of schemathesis
import pytest
from starlette.testclient import TestClient

from project.deploy.export import metadata, write
from project.interface import MultilabelTarget, Target, ValueTarget
from project.serve.app import create_app
from project.serve.service import Settings
from tests.serve.conftest import NAMES, build
from tests.serve.running import make_image

LABELS = MultilabelTarget([f"{name}ish" for name in NAMES], [1, 1, 1], [2, 2, 2], 0, [0.5, 0.01, 0.9])
VALUES = ValueTarget(NAMES, [10.0, 0.0, -3.0], [1.0, 1e-3, 1e4])


def client(target: Target, folder: Path) -> TestClient:
    classifier = build(target)
    file = folder / "model.safetensors"
    write(file, classifier, metadata(classifier, Path("best.ckpt")), "safetensors")
    return TestClient(create_app(Settings(file, 1, None, None, 64, 10**6, 10**6, 30, None)))


def predict(server: TestClient, query: str = "") -> Any:
    """Post a red image; check the response against the specification."""
    stream = io.BytesIO()
    make_image(3, 64, 64, 0).save(stream, "PNG")
    response = server.post(f"/predict{query}", content=stream.getvalue(), headers={"content-type": "image/png"})
    part = "Prediction" if response.status_code == 200 else "Error"
    schemas = server.get("/openapi.json").json()["components"]
    jsonschema_rs.validate({"$ref": f"#/components/schemas/{part}", "components": schemas}, response.json())
    return response.json()


@pytest.mark.filterwarnings("ignore")
def test_labels(tmp_path: Path) -> None:
    server = client(LABELS, tmp_path)
    info = server.get("/model").json()
    assert (info["kind"], info["names"], info["thresholds"]) == ("labels", LABELS.label_names, [0.5, 0.01, 0.9])
    plain, explained = predict(server), predict(server, "?attribution=true")
    assert plain["labels"] == ["greenish", "redish"], plain
    attribution = explained.pop("attribution")
    assert explained == plain and attribution["name"] == "redish"
    assert attribution["lowest_probability"] < plain["probabilities"]["redish"]
    lines = server.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("predicted_total{") and "ish" in line]
    assert counted == [f'predicted_total{{class_name="{name}ish"}} 2.0' for name in ("green", "red")]


@pytest.mark.filterwarnings("ignore")
def test_values(tmp_path: Path) -> None:
    server = client(VALUES, tmp_path)
    info = server.get("/model").json()
    assert (info["kind"], info["names"]) == ("values", NAMES) and "thresholds" not in info
    before = server.get("/metrics").text.count("predicted_total{")
    values = predict(server)["values"]
    assert list(values) == NAMES and abs(values["red"]) > 1000 > abs(values["blue"])
    assert server.get("/metrics").text.count("predicted_total{") == before
    message = predict(server, "?attribution=true")["detail"]
    assert message == "attribution is for models of classes or labels, and this one predicts values"
