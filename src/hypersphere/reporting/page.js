// Sorting, filtering, and the runs behind a number. What is shown comes from provenance.py.
(() => {
  const {parts, runs, tables} = JSON.parse(document.getElementById("provenance").textContent);
  const dialog = document.getElementById("cell");
  const every = (selector, within = document) => [...within.querySelectorAll(selector)];

  // An element with attributes and children; texts stay texts.
  function make(name, attributes = {}, ...children) {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children.filter(child => child !== null));
    return made;
  }

  // ------------------------------------------------------------------ sorting, blanks last
  function sort(button) {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0], column = head.cellIndex;
    const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    const text = row => { const cell = row.cells[column]; return (cell.dataset.sort ?? cell.textContent).trim(); };
    const blank = value => ["", "nan", "–"].includes(value);
    const keyed = [...body.rows].map(row => [text(row), row]);
    const numbers = keyed.every(([value]) => blank(value) || !isNaN(value));
    keyed.sort(([x], [y]) => {
      if (blank(x) || blank(y)) return blank(x) - blank(y);
      return sign * (numbers ? x - y : x.localeCompare(y, "en", {numeric: true}));
    });
    every("th", head.parentElement).forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...keyed.map(([, row]) => row));
    reach(table);
  }

  // ------------------------------------------------------------------ one stop of the Tab key per table
  const numbersOf = table => every("tr:not([hidden]) .ours", table);
  function reach(table, chosen = numbersOf(table)[0]) {
    for (const button of every(".ours", table)) button.tabIndex = button === chosen ? 0 : -1;
  }
  function move(button, key) {
    const table = button.closest("table"), all = numbersOf(table), at = all.indexOf(button);
    const next = {ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1}[key];
    if (next === undefined) return false;
    const chosen = all[Math.max(0, Math.min(all.length - 1, next))];
    reach(table, chosen);
    chosen.focus();
    return true;
  }

  // ------------------------------------------------------------------ rows of one verdict alone
  function show(verdict) {
    let count = 0;
    for (const row of every("tr[data-verdict]")) {
      row.hidden = Boolean(verdict) && row.dataset.verdict !== verdict;
      count += !row.hidden;
    }
    for (const item of every(".item").reverse()) {  // variants before what they stand in
      item.hidden = !item.querySelector("tr[data-verdict]:not([hidden])");
      const folded = item.closest("details.variants");
      if (verdict && folded && !item.hidden) folded.open = true;
    }
    every("table.sortable[data-table]").forEach(table => reach(table));
    document.getElementById("found").textContent = verdict ? `${count} row${count === 1 ? "" : "s"}` : "";
  }

  // ------------------------------------------------------------------ the runs behind a number
  const list = pairs => make("dl", {}, ...pairs.filter(([, value]) => value !== undefined && value !== "")
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value instanceof Node ? value : String(value))]));
  const code = text => make("code", {}, text);
  const quoted = word => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;  // for a shell
  const said = value => typeof value === "string" ? value : JSON.stringify(value);
  const whole = run => Object.fromEntries(Object.entries(run.config).map(([key, part]) => [key, parts[part]]));

  function setting(config, name) {
    const found = name.split(".").reduce((inner, key) => inner?.[key], config);
    return found === undefined ? undefined : said(found);
  }

  function duration(seconds) {
    if (seconds === undefined) return undefined;
    return seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(2)} h`;
  }

  function about(id, varies, open) {
    const run = runs[id];
    if (!run) return make("p", {className: "run"}, "run ", code(id), ": no record of it here");
    const config = whole(run), [data, hardware, versions] = ["data", "hardware", "versions"].map(key => parts[run[key]] ?? {});
    const extras = ["amx", "avx512_bf16"].filter(key => hardware[key]).join(", ");
    const processor = [hardware.processor, extras, hardware.threads && `${hardware.threads} of ${hardware.cores} threads`].filter(Boolean).join("; ");
    const differing = varies.map(name => [name, setting(config, name)]).filter(([, value]) => value !== undefined);
    return make("details", {className: "run", open},
      make("summary", {}, `${run.kind} `, code(id), run.diverged ? " (diverged)" : "",
        differing.length ? make("small", {}, ` ${differing.slice(0, 4).map(pair => pair.join(" = ")).join(", ")}`) : ""),
      list([
        ["commit", run.commit && make("span", {}, code(run.commit), run.dirty ? " and uncommitted changes" : "")],
        ["data", data.name], ["data hash", data.content && code(data.content)],
        ["judges or starts from", run.parent && code(run.parent)],
        ["took", duration(run.seconds)], ["finished", run.finished],
        ["processor", processor], ["device", hardware.device],
        ["versions", Object.entries(versions).map(pair => pair.join(" ")).join(", ")],
      ]),
      run.command ? make("pre", {}, run.command) : null,
      differing.length ? make("h4", {}, "What distinguishes it in this table") : null,
      differing.length ? list(differing) : null,
      make("details", {}, make("summary", {}, "Whole configuration"), make("pre", {}, JSON.stringify(config, null, 2))));
  }

  function open(button) {
    const row = button.closest("tr"), table = button.closest("table"), name = table.dataset.table;
    const {unit, varies, commands, cells} = tables[name], cell = cells[button.dataset.cell];
    const heads = every("thead th", table).map(head => head.firstChild.textContent);
    const facts = heads.map((head, i) => [head, row.cells[i].textContent.trim()])
      .filter(([head]) => head !== "single values");
    const own = facts.slice(0, heads.indexOf("published")), keys = own.map(pair => pair.join(" = ")).join(", ");
    const words = own.map(pair => quoted(pair.join("="))).join(" ");
    const close = make("button", {type: "button", className: "close"}, "Close");
    close.addEventListener("click", () => dialog.close());
    const values = make("tbody", {}, ...cell.values.map(([of, value, id]) =>
      make("tr", {}, make("td", {}, of), make("td", {className: "number"}, value === "nan" ? "diverged" : value), make("td", {}, id ? code(id) : ""))));
    dialog.replaceChildren(
      make("header", {}, make("h2", {id: "cell-title"}, `${name.replace("-table", " table").replace("-figure", " figure")}${keys ? `: ${keys}` : ""}`), close),
      list(facts.slice(heads.indexOf("published"))),
      make("h3", {}, "Single values"),
      cell.values.length ? make("table", {}, make("thead", {}, make("tr", {}, ...[unit, "value", "run"].map(text => make("th", {scope: "col"}, text)))), values)
        : make("p", {}, "None yet."),
      make("h3", {}, "Work it out again"), make("pre", {}, commands.map(line => line.replace("{keys}", () => words)).join("\n")),
      make("h3", {}, `${cell.runs.length} run${cell.runs.length === 1 ? "" : "s"}`),
      ...cell.runs.map((id, i) => about(id, varies, i === 0)));
    dialog.showModal();
    dialog.scrollTop = 0;
    dialog.addEventListener("close", () => button.focus(), {once: true});
  }

  // ------------------------------------------------------------------ what the reader does
  document.addEventListener("click", event => {
    const ours = event.target.closest(".ours") ?? event.target.closest("td:has(> .strip)")?.closest("tr").querySelector(".ours");
    if (ours) { reach(ours.closest("table"), ours); open(ours); }
    const head = event.target.closest("table.sortable thead button");
    if (head) sort(head);
  });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || !event.target.matches?.(".ours")) return;
    if (move(event.target, event.key)) event.preventDefault();
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });  // beside it
  document.getElementById("only").addEventListener("change", event => show(event.target.value));
  document.getElementById("jump").addEventListener("change", event => { if (event.target.value) location.hash = event.target.value; });

  // A link into what is folded unfolds it.
  function unfold() {
    const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = place?.closest("details.variants");
    if (!folded || folded.open) return;
    folded.open = true;
    place.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  every("table.sortable[data-table]").forEach(table => reach(table));
  unfold();
})();
