"use strict";
const MAX_BARS = 5;
const $ = id => document.getElementById(id);
const percent = p => p < 0.001 ? "< 0.1%" : p > 0.999 ? "> 99.9%" : `${(100 * p).toFixed(p < 0.0995 || p > 0.985 ? 1 : 0)}%`;
const numberFormat = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
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

function showRows(result, all) {
  const rows = Object.entries(result.probabilities ?? result.values);
  if (result.probabilities) rows.sort((one, other) => other[1] - one[1]);
  const predicted = result.labels ?? [result.class];
  $("bars").replaceChildren(...rows.slice(0, all ? rows.length : MAX_BARS).map(([name, score]) => {
    const row = document.createElement("li"), label = document.createElement("span"), number = document.createElement("span");
    [label.className, number.className] = ["name", "number"];
    label.textContent = name;
    row.classList.toggle("predicted", predicted.includes(name));
    row.append(label, number);
    if (!result.probabilities) {
      number.textContent = numberFormat.format(score);
      return row;
    }
    number.textContent = percent(score);
    const track = document.createElement("div"), bar = document.createElement("span");
    track.className = "track";
    track.setAttribute("aria-hidden", "true");
    bar.style.width = `${100 * score}%`;
    track.append(bar);
    row.append(track);
    return row;
  }));
  $("more").hidden = all || rows.length <= MAX_BARS;
  $("more").textContent = `Show all ${rows.length.toLocaleString("en")} ${result.labels ? "labels" : result.values ? "values" : "classes"}`;
  $("more").onclick = () => { showRows(result, true); $("bars").children[MAX_BARS].tabIndex = -1; $("bars").children[MAX_BARS].focus(); };
}

function showPrediction(result) {
  const values = result.values && Object.entries(result.values), single = values?.length === 1;
  $("kind").textContent = single ? values[0][0] : values ? "Predicted values" : result.labels ? "Predicted labels" : "Predicted class";
  $("prediction").textContent = single ? numberFormat.format(values[0][1]) : values ? "" : result.labels ? result.labels.join(", ") || "No label" : result.class;
  $("uncertain").hidden = result.confident !== false;
  $("set").hidden = !(result.set?.length > 1);
  $("set").textContent = `Prediction set: ${result.set?.join(", ")}`;
  $("bars").setAttribute("aria-label", values ? "Values" : result.labels ? "Label probabilities" : "Class probabilities");
  $("bars").hidden = single;
  $("attribution").hidden = Boolean(values);
  showRows(result, false);
  $("result").hidden = false;
}

function summarize(result) {
  if (result.values) return Object.entries(result.values).map(([name, value]) => `${name} ${numberFormat.format(value)}`).join(", ");
  if (result.labels) return result.labels.map(name => `${name} ${percent(result.probabilities[name])}`).join(", ") || "No label";
  return `${result.class}, ${percent(result.probability)}${result.confident === false ? ", low confidence" : ""}`;
}

function showAttribution({ attribution, probabilities }) {
  const { name, overlay, lowest_probability: lowest } = attribution, probability = probabilities[name];
  $("overlay").src = overlay;
  const [before, after] = [percent(probability), percent(lowest)];
  $("explanation").textContent = probability - lowest < 0.01 || before === after
    ? `Heat map of “${name}”: brighter regions matter more, but covering any one of them hardly changes the probability.`
    : `Heat map: covering the brightest region lowers the probability of “${name}” from ${before} to ${after}.`;
  $("overlay").alt = $("explanation").textContent;
}

async function run(image) {
  const id = ++latest;
  current = image;
  showError("");
  setStatus("Predicting …");
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
    const summary = summarize(result);
    if (result.values) {
      setStatus(`${summary}.`, true);
      return;
    }
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
$("file").onchange = () => { if ($("file").files[0]) { select(null); run($("file").files[0]); } $("file").value = ""; };
$("token").onsubmit = event => {
  event.preventDefault();
  token = $("secret").value.trim();
  $("token").hidden = true;
  if (current) run(current);
};
addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) { select(null); run(event.dataTransfer.files[0]); }
});
addEventListener("paste", event => { if (event.clipboardData.files[0]) { select(null); run(event.clipboardData.files[0]); } });

function select(sample) {
  for (const button of document.querySelectorAll("#samples button")) button.setAttribute("aria-pressed", button === sample);
}

fetch("model").then(response => response.json()).then(({ kind, names, samples }) => {
  const list = names.length <= 12 ? ` (${names.join(", ")})` : "", count = names.length.toLocaleString("en");
  $("about").textContent = {
    classes: `Classifies images into ${count} classes${list} and shows which regions matter most.`,
    labels: `Predicts which of ${count} labels${list} apply to an image and shows which regions matter most.`,
  }[kind] ?? `Predicts ${count} ${names.length === 1 ? "value" : "values"}${list} of an image.`;
  document.querySelector("#samples ul").append(...samples.map((name, number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    image.src = `samples/${number}`;
    image.alt = `Example ${number + 1}`;
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(image);
    button.onclick = async () => { select(button); run(await (await fetch(image.src)).blob()); };
    item.append(button);
    return item;
  }));
  $("samples").hidden = !samples.length;
}).catch(() => showError("Cannot connect to the server."));
