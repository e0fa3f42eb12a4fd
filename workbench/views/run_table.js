// A table that is filtered, sorted and selected in the page itself: it answers while the kernel is busy.
// Reads the traits `columns`, `rows`, `empty`, `most`, `still`; writes `selected`, `query`, `sort`, `descending`.

function age(created) {
  const minutes = Math.max(0, (Date.now() / 1000 - created) / 60);
  if (minutes < 1) return "now";
  if (minutes < 90) return `${Math.round(minutes)} min`;
  if (minutes < 36 * 60) return `${Math.round(minutes / 60)} h`;
  return `${Math.round(minutes / 1440)} d`;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function render({ model, el }) {
  const still = model.get("still");
  // The attribute keeps JupyterLab from taking what is typed here for its shortcuts.
  const root = element("div", { class: "wb-runs", "data-lm-suppress-shortcuts": "true" });
  const search = element("input", { type: "search", placeholder: "Filter: words in any column", "aria-label": "Filter runs" });
  search.value = model.get("query");
  const said = element("span", { class: "wb-said", role: "status" });
  const all = element("button", { type: "button" }, "Select shown");
  const none = element("button", { type: "button" }, "Clear selection");
  const bar = element("div", { class: "wb-bar" }, search, said, ...(still ? [] : [all, none]));

  const heads = model.get("columns").map((column, index) => {
    const button = element("button", { type: "button", title: column.help }, column.label);
    button.addEventListener("click", () => {
      model.set("descending", model.get("sort") === index ? !model.get("descending") : column.numeric);
      model.set("sort", index);
      model.save_changes();
      arrange();
    });
    return element("th", { scope: "col", class: `wb-${column.name}${column.numeric ? " wb-number" : ""}` }, button);
  });
  const body = element("tbody");
  const head = element("tr", {}, element("th", { scope: "col", class: "wb-box" }, element("span", { class: "wb-hidden" }, "selected")), ...heads);
  const table = element("table", {}, element("thead", {}, head), body);
  const empty = element("div", { class: "wb-none" });
  const frame = element("div", { class: "wb-frame" }, table);
  root.append(bar, frame, empty);
  el.append(root);

  const lines = new Map(); // id -> {row, line, box, text}
  let shown = [];

  function fill(row, line) {
    const box = line?.box ?? element("input", { type: "checkbox", "aria-label": `Select ${row.id}` });
    box.disabled = still;
    const cells = model.get("columns").map((column, index) => {
      const value = row.cells[index];
      const cell = element("td", { class: `wb-${column.name}${column.numeric ? " wb-number" : ""}` });
      if (column.name === "age") cell.textContent = age(row.keys[index]);
      else if (column.name === "state") cell.append(element("i", { class: `wb-dot wb-is-${value}`, "aria-hidden": "true" }), value);
      else cell.textContent = value;
      if (!column.numeric) cell.title = value;
      if (index === 0 && row.note) cell.append(element("small", { title: row.note }, row.note));
      return cell;
    });
    const tr = line?.tr ?? element("tr");
    tr.replaceChildren(element("td", { class: "wb-box" }, box), ...cells);
    tr.dataset.id = row.id;
    const text = [...cells.map((cell) => cell.textContent), row.note].join(" ").toLowerCase();
    return { row, tr, box, text, json: JSON.stringify(row) };
  }

  function read() {
    const ids = new Set();
    for (const row of model.get("rows")) {
      ids.add(row.id);
      const line = lines.get(row.id);
      if (line?.json !== JSON.stringify(row)) lines.set(row.id, fill(row, line));
    }
    for (const id of lines.keys()) if (!ids.has(id)) lines.delete(id);
    arrange();
  }

  function arrange() {
    const words = model.get("query").toLowerCase().split(/\s+/).filter(Boolean);
    const sort = model.get("sort"), sign = model.get("descending") ? -1 : 1;
    shown = model.get("rows").map((row) => lines.get(row.id)).filter((line) => line && words.every((word) => line.text.includes(word)));
    if (sort >= 0) {
      const order = new Intl.Collator(undefined, { numeric: true });
      shown.sort(({ row: { keys: a } }, { row: { keys: b } }) => {
        const [one, two] = [a[sort], b[sort]];
        if (one === null || two === null) return (one === null) - (two === null); // what is not known comes last
        return sign * (typeof one === "number" ? one - two : order.compare(one, two));
      });
    }
    heads.forEach((th, index) => th.setAttribute("aria-sort", index !== sort ? "none" : sign > 0 ? "ascending" : "descending"));
    const focused = body.contains(document.activeElement) ? document.activeElement : null;
    const wanted = shown.map((line) => line.tr);
    if (wanted.length !== body.children.length || wanted.some((tr, index) => tr !== body.children[index])) body.replaceChildren(...wanted);
    if (focused && document.contains(focused)) focused.focus({ preventScroll: true });
    select();
  }

  function select() {
    const selected = new Set(model.get("selected"));
    for (const { row, tr, box } of lines.values()) {
      box.checked = selected.has(row.id);
      tr.classList.toggle("wb-selected", box.checked);
    }
    const rows = model.get("rows");
    const count = shown.length === rows.length ? `${rows.length} runs` : `${shown.length} of ${rows.length} runs`;
    said.textContent = count + (selected.size ? `, ${selected.size} selected` : "");
    none.disabled = !selected.size;
    all.disabled = !shown.length || shown.length > model.get("most");
    all.title = shown.length > model.get("most") ? `At most ${model.get("most")} at once; filter first` : "";
    frame.hidden = !shown.length;
    empty.hidden = !!shown.length;
    empty.textContent = rows.length ? "No run has these words. Clear the filter to see all." : model.get("empty");
  }

  function choose(ids) {
    model.set("selected", ids);
    model.save_changes();
    select();
  }

  function toggle(id) {
    const before = model.get("selected");
    choose(before.includes(id) ? before.filter((other) => other !== id) : [...before, id]);
  }

  search.addEventListener("input", () => {
    model.set("query", search.value);
    model.save_changes();
    arrange();
  });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  body.addEventListener("click", (event) => {
    const tr = event.target.closest("tr");
    if (!tr || still) return;
    if (event.target.type === "checkbox" || !window.getSelection().toString()) toggle(tr.dataset.id);
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const here = shown.findIndex((line) => line.tr.contains(event.target));
    shown[here + step]?.box.focus();
  });
  all.addEventListener("click", () => choose([...new Set([...model.get("selected"), ...shown.map((line) => line.row.id)])]));
  none.addEventListener("click", () => choose([]));
  model.on("change:rows", read);
  model.on("change:selected", select);
  model.on("change:empty", select);
  read();

  const clock = setInterval(() => {
    const index = model.get("columns").findIndex((column) => column.name === "age");
    for (const { row, tr } of lines.values()) tr.children[index + 1].textContent = age(row.keys[index]);
  }, 30000);
  return () => clearInterval(clock);
}

export default { render };
