"use strict";
const SHOWN = 5;
const $ = id => document.getElementById(id);
const percent = p => p < 0.001 ? "< 0.1\u00a0%" : p > 0.999 ? "> 99.9\u00a0%" : `${(100 * p).toFixed(p < 0.0995 || p > 0.985 ? 1 : 0)}\u00a0%`;
let token = "", current = null, turn = 0;

function say(text, done = false) {
  $("status").textContent = text;
  $("status").classList.toggle("done", done);  // told to those who do not see what it says
}

function fail(text) {
  say("");
  $("error").textContent = text;
  $("error").hidden = !text;
}

class Refused extends Error {
  constructor(status, text) { super(text); this.status = status; }
}

async function ask(picture, attribution) {
  for (let attempt = 0; ; attempt++) {
    const headers = { "content-type": "application/octet-stream" };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(`predict?attribution=${attribution}`, { method: "POST", body: picture, headers });
    if (answer.ok) return answer.json();
    if (answer.status !== 503 || attempt === 5) {
      const why = await answer.json().catch(() => ({ detail: answer.statusText }));
      throw new Refused(answer.status, why.detail);
    }
    say("The server is busy; trying again …");
    await new Promise(done => setTimeout(done, 1000 * Number(answer.headers.get("retry-after") || 1)));
  }
}

function bars(probabilities, all) {
  const order = Object.entries(probabilities).sort((one, other) => other[1] - one[1]);
  $("bars").replaceChildren(...order.slice(0, all ? order.length : SHOWN).map(([name, p]) => {
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
  $("more").hidden = all || order.length <= SHOWN;
  $("more").textContent = `Show all ${order.length} classes`;
  $("more").onclick = () => { bars(probabilities, true); $("bars").children[SHOWN].tabIndex = -1; $("bars").children[SHOWN].focus(); };
}

function show(found) {
  const uncertain = found.confident === false;
  $("lead").textContent = uncertain ? "The most likely class is" : "The model says";
  $("verdict").textContent = found.class;
  $("uncertain").hidden = !uncertain;
  bars(found.probabilities, false);
  $("answer").hidden = false;
}

function explain(found) {
  const { overlay, lowest_probability: lowest } = found.attribution, lost = found.probability - lowest;
  $("overlay").src = overlay;
  const [before, after] = [percent(found.probability), percent(lowest)];
  $("meaning").textContent = lost < 0.01 || before === after
    ? "The brightest part speaks for it most, but no single part decides."
    : `Covering the brightest part lowers “${found.class}” from ${before} to ${after}.`;
  $("overlay").alt = `Heat map of the evidence. ${$("meaning").textContent}`;
}

async function classify(picture) {
  const mine = ++turn;
  current = picture;
  fail("");
  say("Looking …");
  $("answer").classList.add("waiting");
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(picture);
  $("original").hidden = false;
  $("overlay").removeAttribute("src");
  $("overlay").alt = $("meaning").textContent = "";
  try {
    const found = await ask(picture, false);
    if (mine !== turn) return;
    show(found);
    $("answer").classList.remove("waiting");
    const said = `${found.class}, ${percent(found.probability)}${found.confident === false ? ", not sure" : ""}`;
    say(`${said}. Looking for what it rests on …`);
    const explained = await ask(picture, true).catch(() => null);
    if (mine !== turn) return;
    if (explained) explain(explained);
    else $("meaning").textContent = "What it rests on could not be found out.";
    say(`${said}. ${$("meaning").textContent}`, true);
  } catch (error) {
    if (mine !== turn) return;
    $("answer").hidden = true;
    if (error.status === 401) {
      fail(token ? "The server does not take this token." : "");
      $("token").hidden = false;
      $("secret").focus();
    } else {
      fail(error.status ? `${error.message[0].toUpperCase()}${error.message.slice(1)}.` : "The server cannot be reached.");
    }
  }
}

$("picture").onload = () => $("picture").classList.toggle("small", $("picture").naturalWidth < 120);
$("picture").onerror = () => { $("original").hidden = true; };  // a format that only the server reads
$("file").onchange = () => { if ($("file").files[0]) { press(null); classify($("file").files[0]); } $("file").value = ""; };
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
  if (event.dataTransfer.files[0]) { press(null); classify(event.dataTransfer.files[0]); }
});
addEventListener("paste", event => { if (event.clipboardData.files[0]) { press(null); classify(event.clipboardData.files[0]); } });

function press(button) {
  for (const other of document.querySelectorAll("#samples button")) other.setAttribute("aria-pressed", other === button);
}

fetch("model").then(answer => answer.json()).then(({ classes, samples }) => {
  const named = classes.length <= 12 ? `: ${classes.join(", ")}` : "";
  $("about").textContent = `This model tells ${classes.length} classes apart${named}.`;
  document.querySelector("#samples ul").append(...samples.map((name, number) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = document.createElement("img");
    image.src = `samples/${number}`;
    image.alt = `Sample ${number + 1}`;
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.append(image);
    button.onclick = async () => { press(button); classify(await (await fetch(image.src)).blob()); };
    item.append(button);
    return item;
  }));
  $("samples").hidden = !samples.length;
}).catch(() => fail("The server cannot be reached."));
