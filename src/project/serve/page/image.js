"use strict";
const view = {
  one: "an image", many: "images", parts: "regions", attribution: "heat map",
  type: "application/octet-stream",
  body: image => image,
  fetch: response => response.blob(),
  show(image) {
    URL.revokeObjectURL($("image").src);
    $("image").src = URL.createObjectURL(image);
    $("original").hidden = false;
    $("overlay").removeAttribute("src");
    $("overlay").alt = "";
  },
  result({ values }) {
    $("attribution").hidden = Boolean(values);
  },
  hardly: name => `Heat map of “${name}”: brighter regions matter more, but covering any one of them hardly changes the probability.`,
  lowers: (name, before, after) => `Heat map: covering the brightest region lowers the probability of “${name}” from ${before} to ${after}.`,
  explain({ overlay }) {
    $("overlay").src = overlay;
    $("overlay").alt = $("explanation").textContent;
  },
  example(name, number) {
    const image = document.createElement("img");
    image.src = `samples/${number}`;
    image.alt = `Example ${number + 1}`;
    return image;
  },
};

$("image").onload = () => $("image").classList.toggle("small", $("image").naturalWidth < 120);
$("image").onerror = () => { $("original").hidden = true; };  // a format that only the server can decode
$("file").onchange = () => { if ($("file").files[0]) { select(null); run($("file").files[0]); } $("file").value = ""; };
addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) { select(null); run(event.dataTransfer.files[0]); }
});
addEventListener("paste", event => { if (event.clipboardData.files[0]) { select(null); run(event.clipboardData.files[0]); } });
