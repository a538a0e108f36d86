/* Sorts tables, enlarges figures, switches light and dark, and moves the threshold explorer. Without it the page says
   the same, and nothing here is fetched from anywhere. */
"use strict";

const byId = (id) => document.getElementById(id);
const DASH = "\u2013";

/* The nearest number of so many decimals by the value itself, halves to even: as the tables are rounded. Halves are
   binary fractions, which 30 more decimals tell from everything else. Never minus zero. */
function rounded(value, decimals) {
  const tail = Math.abs(value).toFixed(Math.min(decimals + 30, 100)).slice(-30);
  if (!/^50*$/.test(tail)) return Number(value.toFixed(decimals)) + 0;
  const below = Math.floor(Math.abs(value) * 10 ** decimals);
  return (Math.sign(value) * (below + (below % 2))) / 10 ** decimals + 0;
}

/* A number as the page prints it: fixed decimals, a true minus sign, a dash where it is not defined. */
function printed(value, decimals) {
  if (!Number.isFinite(value)) return DASH;
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  const text = rounded(value, decimals).toLocaleString("en-US", digits);
  return text.replace("-", "\u2212");
}

/* The first number of a cell, or null: "0.813 (0.746 to 0.878)" is 0.813, "<0.001" a little less than 0.001. */
function numberOf(text) {
  const found = text.replace(/\u2212/g, "-").replace(/(\d),(?=\d{3})/g, "$1").match(/^([<\u2265]?)\s*(-?\d+(\.\d+)?)/);
  if (!found) return null;
  return parseFloat(found[2]) - (found[1] === "<" ? 1e-9 : 0);
}

/* Numbers by value, then words; what is not defined comes last whatever the direction. */
function compareCells(a, b, direction) {
  const [x, y] = [numberOf(a), numberOf(b)];
  if (x !== null && y !== null) return direction * (x - y);
  if (x !== null || y !== null) return x !== null ? -1 : 1;
  if ((a === DASH) !== (b === DASH)) return a === DASH ? 1 : -1;
  return direction * a.localeCompare(b);
}

/* Sort the rows between headings; headings and totals stay where they are. */
function sortTable(table, column, direction) {
  const body = table.tBodies[0];
  const cell = (row) => row.cells[column].textContent.trim();
  let block = [];
  const place = (before) => {
    block.sort((a, b) => compareCells(cell(a), cell(b), direction));
    for (const row of block) body.insertBefore(row, before);
    block = [];
  };
  for (const row of [...body.rows]) {
    if (row.className) place(row);
    else block.push(row);
  }
  place(null);
}

/* A click sorts rising, the next falling, the third gives the first order back. */
function makeSortable(table) {
  const heads = [...table.querySelectorAll("tr.columns th")];
  const first = [...table.tBodies[0].rows];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      for (const other of heads) other.removeAttribute("aria-sort");
      table.tBodies[0].append(...first);
      if (next === null) return;
      head.setAttribute("aria-sort", next ?? "ascending");
      sortTable(table, head.cellIndex, next ? -1 : 1);
    });
  }
}

function setUpEnlarging() {
  const dialog = byId("enlarged");
  const image = dialog.querySelector("img");
  for (const link of document.querySelectorAll("a.picture")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      image.src = link.getAttribute("href");
      image.alt = link.querySelector("img").alt;
      byId("enlarged-title").textContent = link.dataset.title;
      dialog.showModal();
    });
  }
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/* The choice is kept for the next visit where the browser lets a page from disk do so. */
function remembered(value) {
  try {
    if (value !== undefined) localStorage.setItem("sarc-ray-theme", value);
    return localStorage.getItem("sarc-ray-theme");
  } catch {
    return null;
  }
}

function setUpTools() {
  const button = byId("theme");
  const root = document.documentElement;
  const dark = () => root.dataset.theme === "dark";
  const show = (theme) => {
    root.dataset.theme = theme;
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", dark() ? "Change to light colours" : "Change to dark colours");
  };
  show(remembered() ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  button.addEventListener("click", () => {
    show(dark() ? "light" : "dark");
    remembered(root.dataset.theme);
  });
  byId("print").addEventListener("click", () => window.print());
  button.hidden = byId("print").hidden = false;
}

/* Say in the list of sections which one is being read. */
function followReading() {
  const links = new Map([...document.querySelectorAll('nav a[href^="#"]')].map((a) => [a.hash.slice(1), a]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-20% 0px -70% 0px" },
  );
  for (const id of links.keys()) seen.observe(byId(id));
}

/* Figures of one score at one cut: counted in the test set, then carried to another prevalence. */
function atCut(score, index, prevalence, per) {
  const tp = score.tp[index];
  const fp = score.fp[index];
  const sensitivity = tp / score.n_with;
  const specificity = 1 - fp / score.n_without;
  const found = sensitivity * prevalence;
  const falseAlarms = (1 - specificity) * (1 - prevalence);
  const ppv = found / (found + falseAlarms);
  const passed = specificity * (1 - prevalence);
  return {
    tp, fp, fn: score.n_with - tp, tn: score.n_without - fp, sensitivity, specificity, ppv,
    npv: passed / (passed + prevalence - found),
    alerts: per * (found + falseAlarms), found: per * found, missed: per * (prevalence - found), falseAlarms: per * falseAlarms,
    needed: 1 / ppv,
  };
}

class Explorer {
  constructor(data) {
    this.data = data;
    this.figures = [
      ["n", "Patients of the test set", 0],
      ["sensitivity", "Sensitivity", 3], ["specificity", "Specificity", 3], ["ppv", "PPV", 3], ["npv", "NPV", 3],
      ["alerts", `Alerts per ${printed(data.per, 0)}`, 0],
      ["found", `Found per ${printed(data.per, 0)}`, 0],
      ["missed", `Missed per ${printed(data.per, 0)}`, 0],
      ["falseAlarms", `False alarms per ${printed(data.per, 0)}`, 0],
      ["needed", "Number needed to test", 1],
    ];
    this.fill(byId("explorer-set"), data.sets.map((set, k) => [k, set.label]));
    byId("explorer-set").addEventListener("change", () => this.choose());
    byId("explorer-rule").addEventListener("change", (event) => {
      if (event.target.value === "") return;
      byId("explorer-cut").value = event.target.value;
      this.show();
    });
    for (const id of ["explorer-cut", "explorer-prevalence", "explorer-sarc-f"]) {
      byId(id).addEventListener("input", () => this.show());
    }
    byId("explorer-figures").replaceChildren(...this.figures.map(([name, label]) => this.line(name, label)));
    this.choose();
    byId("explorer-off").hidden = true;
    byId("explorer-on").hidden = false;
  }

  fill(select, options) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  }

  line(name, label) {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = label;
    row.append(head);
    for (const who of ["score", "sarc-f"]) {
      const cell = document.createElement("td");
      cell.id = `explorer-${who}-${name}`;
      if (who === "sarc-f") cell.className = "of-sarc-f";
      row.append(cell);
    }
    return row;
  }

  /* Another test set: its own thresholds, and its own prevalence to begin with. */
  choose() {
    this.set = this.data.sets[Number(byId("explorer-set").value)];
    const { score, sarc_f: sarcF } = this.set;
    byId("explorer-cut").max = score.cuts.length - 1;
    byId("explorer-cut").value = this.set.in_force;
    this.fill(byId("explorer-rule"), [["", "set by hand"], ...score.named]);
    byId("explorer-prevalence").value = ((100 * score.n_with) / (score.n_with + score.n_without)).toFixed(1);
    this.exact = score.n_with / (score.n_with + score.n_without);
    byId("explorer-sarc-f-part").hidden = sarcF === null;
    for (const part of document.querySelectorAll(".of-sarc-f")) part.hidden = sarcF === null;
    if (sarcF !== null) {
      this.fill(byId("explorer-sarc-f"), sarcF.cuts.map((cut, k) => [k, String(cut)]));
      byId("explorer-sarc-f").value = sarcF.cuts.indexOf(this.data.sarc_f_cut);
    }
    this.show();
  }

  /* The field shows one decimal; untouched it stands for the test set's own prevalence, unrounded. */
  prevalence() {
    const field = byId("explorer-prevalence");
    const untouched = field.value === (100 * this.exact).toFixed(1);
    const value = untouched ? this.exact : Number(field.value) / 100;
    const known = field.value !== "" && value > 0 && value < 1;
    field.setAttribute("aria-invalid", String(!known));
    return known ? value : NaN;
  }

  show() {
    const index = Number(byId("explorer-cut").value);
    const { score, sarc_f: sarcF, label } = this.set;
    const prevalence = this.prevalence();
    const own = atCut(score, index, prevalence, this.data.per);
    const rule = score.named.find(([place]) => place === index);
    const cut = printed(score.cuts[index], rule ? 4 : 2);
    byId("explorer-cut-said").textContent = cut;
    byId("explorer-cut").setAttribute("aria-valuetext", `${cut}${rule ? `, ${rule[1]}` : ""}`);
    byId("explorer-rule").value = rule ? index : "";
    this.showCells(own, score);
    this.showFigures("score", own, score);
    if (sarcF !== null) {
      const other = atCut(sarcF, Number(byId("explorer-sarc-f").value), prevalence, this.data.per);
      this.showFigures("sarc-f", other, sarcF);
    }
    byId("explorer-told").textContent = Number.isFinite(prevalence)
      ? `${label}, threshold ${cut}: of ${printed(this.data.per, 0)} people at a prevalence of ${printed(100 * prevalence, 1)}% ` +
        `${printed(own.alerts, 0)} would be flagged, ${printed(own.found, 0)} of them with ${this.data.outcome}; ` +
        `${printed(own.missed, 0)} with it would be missed.`
      : "Give a prevalence between 0 and 100%.";
  }

  showCells(own, score) {
    const counts = {
      tp: own.tp, fp: own.fp, fn: own.fn, tn: own.tn, flagged: own.tp + own.fp, unflagged: own.fn + own.tn,
    };
    for (const [name, count] of Object.entries(counts)) byId(`explorer-${name}`).textContent = printed(count, 0);
  }

  showFigures(who, values, score) {
    const all = { ...values, n: score.n_with + score.n_without };
    for (const [name, , decimals] of this.figures) {
      byId(`explorer-${who}-${name}`).textContent = printed(all[name], decimals);
    }
  }
}

setUpTools();
setUpEnlarging();
for (const table of document.querySelectorAll("table")) {
  if (table.querySelector("tr.columns") && table.tBodies[0].rows.length > 1) makeSortable(table);
}
if (byId("explorer-data")) new Explorer(JSON.parse(byId("explorer-data").textContent));
if (document.querySelector("nav")) followReading();
