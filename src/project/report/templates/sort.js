for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  const read = (row, column) => {
    const words = row.cells[column].textContent.trim();
    const number = parseFloat(words.replaceAll(",", "").replace("−", "-"));
    return heads[column].classList.contains("num") ? (isNaN(number) ? -Infinity : number) : words;
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    const rows = [...table.tBodies[0].rows].map(row => [read(row, column), row]);
    rows.sort(([a], [b]) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true })) * (rising ? 1 : -1));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  }));
}
