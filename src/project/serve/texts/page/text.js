"use strict";
const view = {
  one: "a text", many: "texts", parts: "words", attribution: "evidence of the words",
  type: "application/json",
  body: text => JSON.stringify({ text }),
  fetch: async response => (await response.json()).text,
  show(text) {
    $("text").value = $("words").textContent = text;
  },
  result(result) {
    $("cut").hidden = !result.cut;
  },
  hardly: name => `Words with evidence for “${name}” are highlighted, but leaving out any one of them hardly changes the probability.`,
  lowers: (name, before, after) => `Words with evidence for “${name}” are highlighted; without the strongest, its probability falls from ${before} to ${after}.`,
  explain({ words }) {
    const most = Math.max(0.25, ...words.map(({ drop }) => drop));  // a text without clear evidence looks weak
    $("words").replaceChildren(...words.map(({ text, drop }) => {
      const word = document.createElement(drop > 0.05 * most ? "mark" : "span");
      word.textContent = text;
      word.style.setProperty("--strength", `${Math.round(70 * Math.max(0, drop) / most)}%`);
      return word;
    }));
  },
  example: name => name.length > 80 ? `${name.slice(0, 80)}…` : name,
};

$("form").onsubmit = event => {
  event.preventDefault();
  select(null);
  run($("text").value);
};
$("text").onkeydown = event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
};
