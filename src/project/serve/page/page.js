"use strict";
const MAX_BARS = 5;
const $ = id => document.getElementById(id);
const percent = p => p < 0.001 ? "< 0.1%" : p > 0.999 ? "> 99.9%" : `${(100 * p).toFixed(p < 0.0995 || p > 0.985 ? 1 : 0)}%`;
let token = "", current = null, latest = 0;

function setStatus(text, done = false) {
  $("status").textContent = text;
  $("status").classList.toggle("done", done);  // hidden, but still announced by screen readers
}

function showError(text) {
  setStatus("");
  $("error").textContent = text;
  $("error").hidden = !text;
}

class RequestError extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function predict(image, attribution) {
  for (let attempt = 0; ; attempt++) {
    const headers = { "content-type": "application/octet-stream" };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(`predict?attribution=${attribution}`, { method: "POST", body: image, headers });
    if (response.ok) return response.json();
    if (response.status !== 503 || attempt === 5) {
      const body = await response.json().catch(() => ({ detail: response.statusText }));
      throw new RequestError(response.status, body.detail);
    }
    setStatus("The server is busy. Retrying …");
    await new Promise(resolve => setTimeout(resolve, 1000 * Number(response.headers.get("retry-after") || 1)));
  }
}

function showBars(probabilities, all) {
  const sorted = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  $("bars").replaceChildren(...sorted.slice(0, all ? sorted.length : MAX_BARS).map(([name, p]) => {
    const row = document.createElement("li"), label = document.createElement("span"), number = document.createElement("span");
    const track = document.createElement("div"), bar = document.createElement("span");
    [label.className, number.className, track.className] = ["name", "number", "track"];
    [label.textContent, number.textContent] = [name, percent(p)];
    track.setAttribute("aria-hidden", "true");
    bar.style.width = `${100 * p}%`;
    track.append(bar);
    row.append(label, number, track);
    return row;
  }));
  $("more").hidden = all || sorted.length <= MAX_BARS;
  $("more").textContent = `Show all ${sorted.length.toLocaleString("en")} classes`;
  $("more").onclick = () => { showBars(probabilities, true); $("bars").children[MAX_BARS].tabIndex = -1; $("bars").children[MAX_BARS].focus(); };
}

function showPrediction(result) {
  $("prediction").textContent = result.class;
  $("uncertain").hidden = result.confident !== false;
  showBars(result.probabilities, false);
  $("result").hidden = false;
}

function showAttribution(result) {
  const { overlay, lowest_probability: lowest } = result.attribution;
  $("overlay").src = overlay;
  const [before, after] = [percent(result.probability), percent(lowest)];
  $("explanation").textContent = result.probability - lowest < 0.01 || before === after
    ? "Heat map: brighter regions matter more, but covering any one of them hardly changes the probability."
    : `Heat map: covering the brightest region lowers the probability of “${result.class}” from ${before} to ${after}.`;
  $("overlay").alt = $("explanation").textContent;
}

async function classify(image) {
  const id = ++latest;
  current = image;
  showError("");
  setStatus("Classifying …");
  $("result").classList.add("waiting");
  URL.revokeObjectURL($("image").src);
  $("image").src = URL.createObjectURL(image);
  $("original").hidden = false;
  $("overlay").removeAttribute("src");
  $("overlay").alt = $("explanation").textContent = "";
  try {
    const result = await predict(image, false);
    if (id !== latest) return;
    showPrediction(result);
    $("result").classList.remove("waiting");
    const summary = `${result.class}, ${percent(result.probability)}${result.confident === false ? ", low confidence" : ""}`;
    setStatus(`${summary}. Computing the heat map …`);
    const explained = await predict(image, true).catch(() => null);
    if (id !== latest) return;
    if (explained) showAttribution(explained);
    else $("explanation").textContent = "The heat map could not be computed.";
    setStatus(`${summary}. ${$("explanation").textContent}`, true);
  } catch (error) {
    if (id !== latest) return;
    $("result").hidden = true;
    if (error.status === 401) {
      showError(token ? "The server rejected this token." : "");
      $("token").hidden = false;
      $("secret").focus();
    } else {
      showError(error.status ? `${error.message[0].toUpperCase()}${error.message.slice(1)}.` : "Cannot connect to the server.");
    }
  }
}

$("image").onload = () => $("image").classList.toggle("small", $("image").naturalWidth < 120);
$("image").onerror = () => { $("original").hidden = true; };  // a format that only the server can decode
$("file").onchange = () => { if ($("file").files[0]) { select(null); classify($("file").files[0]); } $("file").value = ""; };
$("token").onsubmit = event => {
  event.preventDefault();
  token = $("secret").value.trim();
  $("token").hidden = true;
  if (current) classify(current);
};
addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) { select(null); classify(event.dataTransfer.files[0]); }
});
addEventListener("paste", event => { if (event.clipboardData.files[0]) { select(null); classify(event.clipboardData.files[0]); } });

function select(sample) {
  for (const button of document.querySelectorAll("#samples button")) button.setAttribute("aria-pressed", button === sample);
}

fetch("model").then(response => response.json()).then(({ classes, samples }) => {
  const names = classes.length <= 12 ? ` (${classes.join(", ")})` : "";
  $("about").textContent = `Classifies images into ${classes.length.toLocaleString("en")} classes${names} and shows which regions matter most.`;
  document.querySelector("#samples ul").append(...samples.map((name, number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    image.src = `samples/${number}`;
    image.alt = `Example ${number + 1}`;
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(image);
    button.onclick = async () => { select(button); classify(await (await fetch(image.src)).blob()); };
    item.append(button);
    return item;
  }));
  $("samples").hidden = !samples.length;
}).catch(() => showError("Cannot connect to the server."));
