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

async function predict(sample, attribution) {
  for (let attempt = 0; ; attempt++) {
    const headers = { "content-type": view.type };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(`predict?attribution=${attribution}`, { method: "POST", body: view.body(sample), headers });
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
  view.result(result);
  showRows(result, false);
  $("result").hidden = false;
}

function summarize(result) {
  if (result.values) return Object.entries(result.values).map(([name, value]) => `${name} ${numberFormat.format(value)}`).join(", ");
  if (result.labels) return result.labels.map(name => `${name} ${percent(result.probabilities[name])}`).join(", ") || "No label";
  return `${result.class}, ${percent(result.probability)}${result.confident === false ? ", low confidence" : ""}`;
}

function explain({ attribution, probabilities }) {
  const { name, lowest_probability: lowest } = attribution, probability = probabilities[name];
  const [before, after] = [percent(probability), percent(lowest)], hardly = probability - lowest < 0.01 || before === after;
  $("explanation").textContent = hardly ? view.hardly(name) : view.lowers(name, before, after);
  view.explain(attribution);
}

async function run(sample) {
  const id = ++latest;
  current = sample;
  showError("");
  setStatus("Predicting …");
  $("result").classList.add("waiting");
  $("explanation").textContent = "";
  view.show(sample);
  try {
    const result = await predict(sample, false);
    if (id !== latest) return;
    showPrediction(result);
    $("result").classList.remove("waiting");
    const summary = summarize(result);
    if (result.values) {
      setStatus(`${summary}.`, true);
      return;
    }
    setStatus(`${summary}. Computing the ${view.attribution} …`);
    const explained = await predict(sample, true).catch(() => null);
    if (id !== latest) return;
    if (explained) explain(explained);
    else $("explanation").textContent = `The ${view.attribution} could not be computed.`;
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

$("token").onsubmit = event => {
  event.preventDefault();
  token = $("secret").value.trim();
  $("token").hidden = true;
  if (current) run(current);
};

function select(sample) {
  for (const button of document.querySelectorAll("#samples button")) button.setAttribute("aria-pressed", button === sample);
}

addEventListener("DOMContentLoaded", () => fetch("model").then(response => response.json()).then(({ kind, names, samples }) => {
  const list = names.length <= 12 ? ` (${names.join(", ")})` : "", count = names.length.toLocaleString("en");
  $("about").textContent = {
    classes: `Classifies ${view.many} into ${count} classes${list} and shows which ${view.parts} matter most.`,
    labels: `Predicts which of ${count} labels${list} apply to ${view.one} and shows which ${view.parts} matter most.`,
  }[kind] ?? `Predicts ${count} ${names.length === 1 ? "value" : "values"}${list} of ${view.one}.`;
  document.querySelector("#samples ul").append(...samples.map((name, number) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(view.example(name, number));
    button.onclick = async () => { select(button); run(await view.fetch(await fetch(`samples/${number}`))); };
    item.append(button);
    return item;
  }));
  $("samples").hidden = !samples.length;
}).catch(() => showError("Cannot connect to the server.")));  // after the other script
