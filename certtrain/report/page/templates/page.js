"use strict";
// Sorts and filters tables whose rows carry what they are sorted by; nothing else on the page needs a script.
for (const box of document.querySelectorAll("[data-sortable]")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const search = box.querySelector("input[type=search]");
  const choices = [...box.querySelectorAll("select[data-column]")];
  const sortby = box.querySelector("select[data-sortby]");
  const count = box.querySelector(".count");

  // Numbers by size and words by the alphabet; what has no value comes last, whatever the direction.
  const compare = (column, numeric, sign) => (a, b) => {
    const [x, y] = [a.cells[column].dataset.value, b.cells[column].dataset.value];
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
  };

  const sort = (column, direction) => {
    const numeric = heads[column].dataset.number === "yes";
    rows.sort(compare(column, numeric, direction === "ascending" ? 1 : -1));
    body.append(...rows);
    heads.forEach((head, i) => head.hasAttribute("aria-sort") && head.setAttribute("aria-sort", i === column ? direction : "none"));
    if (sortby) sortby.value = `${column} ${direction}`;
  };

  const filter = () => {
    const words = search ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const fits = words.every((word) => text.includes(word)) &&
        choices.every((choice) => choice.value === "" || row.cells[choice.dataset.column].dataset.text === choice.value);
      row.hidden = !fits;
      shown += fits;
    }
    if (count) count.textContent = `${shown} of ${rows.length}`;
  };

  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const first = head.dataset.number === "yes" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    sort(column, head.getAttribute("aria-sort") === first ? other : first);
  }));
  sortby?.addEventListener("change", () => {
    const [column, direction] = sortby.value.split(" ");
    sort(Number(column), direction);
  });
  const whole = box.querySelector(".all input");
  whole?.addEventListener("change", () => box.classList.toggle("whole", whole.checked));
  search?.addEventListener("input", filter);
  choices.forEach((choice) => choice.addEventListener("change", filter));
  filter();
}
