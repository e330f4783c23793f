"""The command `alerts` on made news with a planted surge."""

import csv
import json
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from project.alerts.alerts import find_negative
from project.cli import main
from project.errors import UserError
from tests.conftest import REPOSITORY

QUICK = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32-true"]
WORDS = {"negative": ["loss", "fraud", "slump"], "positive": ["profit", "growth", "record"]}
OTHERS = ["the", "company", "reports", "on", "its", "quarter", "in", "a", "market", "with", "shares"]
START = datetime(2026, 1, 5, tzinfo=UTC)
SURGE = range(40, 50)


def write_text(rng: random.Random, label: str) -> str:
    words = [*rng.sample(OTHERS, 5), *WORDS[label]]
    rng.shuffle(words)
    return " ".join(words)


def news(hours: range, surge: bool = True) -> list[list[str]]:
    """Return rows of text, time and topic: 30 % are negative, of the topic banks 80 % during the surge."""
    rows = []
    for hour in hours:
        rng = random.Random(hour)
        for minute in range(0, 60, 4):
            for topic in ("banks", "oil"):
                share = 0.8 if surge and topic == "banks" and hour in SURGE else 0.3
                time = START + timedelta(hours=hour, minutes=minute)
                label = "negative" if rng.random() < share else "positive"
                rows.append([write_text(rng, label), time.isoformat(), topic])
    return rows


def write_news(file: Path, rows: list[list[str]]) -> Path:
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([["text", "published", "topic"], *rows])
    return file


def read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small model of texts."""
    folder, rng = tmp_path_factory.mktemp("model"), random.Random(0)
    with (folder / "train.csv").open("w", newline="") as stream:
        labels = [("negative", "positive")[number % 2] for number in range(300)]
        csv.writer(stream).writerows([["text", "label"], *([write_text(rng, label), label] for label in labels)])
    with chdir(folder):
        options = ["--data", "project.datamodules.texts.TextDataModule", "--data.table", "train.csv"]
        options += ["--model.net", "project.modules.networks.texts.ByteNet", "--model.optimizer.lr", "0.01"]
        main(["fit", *options, "--trainer.max_epochs", "4", "--test_after_fit", "false", *QUICK])
    return folder / "logs/run/version_0/checkpoints/best.ckpt"


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """The address of an HTTP server, and what is posted to it; /broken answers with status 500."""
    received: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()


def test_negative_class_is_found_or_asked_for() -> None:
    assert find_negative(["positive", "Negative"], None) == 1 and find_negative(["好评", "负面"], None) == 1
    assert find_negative(["joy", "anger"], "anger") == 1
    with pytest.raises(UserError, match="no class is named negative: choose one with --negative NAME from joy, anger"):
        find_negative(["joy", "anger"], None)
    with pytest.raises(UserError, match="no class named 'Angr'; did you mean anger"):
        find_negative(["joy", "anger"], "Angr")


@pytest.mark.slow
def test_surge_raises_an_alert(
    model: Path,
    here: Path,
    server: tuple[str, list[dict[str, object]]],
    capsys: pytest.CaptureFixture[str],
    failing: Callable[[list[str]], str],
) -> None:
    address, received = server
    alerts = ["alerts", "--ckpt_path", str(model), "--columns.time", "published", *QUICK]
    rows = news(range(75))
    rows[5][1], rows[6][0], rows[7][2], rows[8][1] = "soon", " ", "", "2999-01-01T00:00Z"
    rows[100], rows[120] = rows[120], rows[100]
    surge = ["--data.table", str(write_news(here / "surge.csv", rows)), "--columns.topic", "topic"]
    with pytest.raises(SystemExit) as stopped:
        main([*alerts, *surge, "--webhook", address])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    for note in (
        "1 row without a readable time, e.g. line 7: 'soon'",
        "1 row later than tomorrow",
        "1 row without a text",
    ):
        assert f"skipping {note}" in shown.err
    assert "rows not in the order of time" in shown.err and "not tested: 1 topic" in shown.out
    assert "ALERT banks" in shown.out and "ended: banks" in shown.out and "at most 1 false in 1,000" in shown.out
    folder = Path("logs/alerts/version_0")
    (alert,) = read(folder / "alerts.csv")
    assert alert["topic"] == "banks" and alert["delivered"] == "yes" and float(alert["share"]) > 0.5
    assert alert["since"] == "2026-01-06T16:00Z" and "2026-01-06T16:00Z" <= alert["window"] <= "2026-01-06T19:00Z"
    (posted,) = received
    assert posted["topic"] == "banks" and posted["window"] == alert["window"] and "negative" in str(posted["text"])
    shares = read(folder / "shares.csv")
    assert {row["topic"] for row in shares} == {"banks", "oil", "(no topic)"}
    assert sum(int(row["texts"]) for row in shares) == len(rows) - 3
    assert float(shares[-1]["negative"]) + float(shares[-1]["positive"]) == pytest.approx(1)
    assert Image.open(folder / "alerts.png").size[0] > 500

    with pytest.raises(SystemExit):  # all topics are one; the delivery fails
        main([*alerts, *surge[:2], "--every", "2h", "--webhook", f"{address}/broken"])
    assert "not delivered to 127.0.0.1: 500" in capsys.readouterr().err
    (alert,) = read(Path("logs/alerts/version_1/alerts.csv"))
    assert alert["topic"] == "all texts" and alert["delivered"] == "no"

    calm = ["--data.table", str(write_news(here / "calm.csv", news(range(75), surge=False)))]
    main([*alerts, *calm])
    assert read(Path("logs/alerts/version_2/alerts.csv")) == []
    assert "nothing was tested" in failing([*alerts, *calm, "--every", "1d"])
    assert "--every must be" in failing([*alerts, *calm, "--every", "1 month"])
    assert "--webhook must be" in failing([*alerts, *calm, "--webhook", "example.org"])
    assert "has no column 'topics'" in failing([*alerts, *calm, "--columns.topic", "topics"])
    assert "choose" in failing([*alerts, *calm, "--negative", "terrible"])


@pytest.mark.slow
def test_growing_table_is_followed(model: Path, here: Path, server: tuple[str, list[dict[str, object]]]) -> None:
    address, received = server
    file = write_news(here / "news.csv", news(range(35)))
    command = [sys.executable, str(REPOSITORY / "train.py"), "alerts", "--ckpt_path", str(model), *QUICK]
    command += ["--data.table", "news.csv", "--columns.time", "published", "--columns.topic", "topic"]
    command += ["--follow", "true", "--webhook", address]
    program = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(240, program.kill)
    watchdog.start()
    assert program.stdout and program.stderr
    try:
        assert next(line for line in program.stdout if "waiting for more" in line).startswith("1,050 texts")
        with file.open("a", newline="") as stream:
            csv.writer(stream).writerows(news(range(35, 46)))
            stream.write("half a row, ")
        assert "banks" in next(line for line in program.stdout if "ALERT" in line)
        with file.open("a", newline="") as stream:
            stream.write(f"{START.isoformat()},oil\n")  # late
            csv.writer(stream).writerows(news(range(46, 75)))
        assert next(line for line in program.stdout if "ended: banks" in line)
        program.send_signal(signal.SIGTERM)
        shown, errors = program.communicate()
    finally:
        watchdog.cancel()
        program.kill()
    assert program.returncode == 1 and "Traceback" not in errors
    assert "1 text came after a text of a later window" in shown
    folder = here / "logs/alerts/version_0"
    (alert,) = read(folder / "alerts.csv")
    assert alert["until"] and alert["delivered"] == "yes" and len(received) == 1
    rows = read(folder / "shares.csv")
    assert len(rows) == 2 * 75 and sum(int(row["texts"]) for row in rows) == len(news(range(75)))
    assert (folder / "alerts.png").is_file()
