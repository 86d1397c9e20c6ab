"use strict";
const articles = [...document.querySelectorAll("article")];
const search = document.getElementById("search");
const papers = [...document.querySelectorAll(".papers button")];
const said = document.getElementById("said");

function say(text) {
  said.textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, 2500);
}

// copying: a page that was opened from a folder may have no clipboard, so a selection does it then

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) { say("This browser does not let the page copy"); return; }
  }
  say(`${what} copied`);
}

const content = (article) => article.content_ ??= JSON.parse(article.querySelector("script.content").textContent);

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(content(button.closest("article"))[button.dataset.copy], `${button.textContent} of ${button.closest("article").id}`));
}

// tables, built when they are opened

function rowsOf(csv) {
  const rows = [[]];
  for (const [, cell, quoted, end] of csv.matchAll(/((?:"((?:[^"]|"")*)"|[^,\n]*))(,|\n|$)/g)) {
    if (cell === "" && end === "") break;
    rows.at(-1).push(quoted === undefined ? cell : quoted.replaceAll('""', '"'));
    if (end === "\n") rows.push([]);
  }
  return rows.filter((row) => row.length);
}

const asNumber = (text) => (text.trim() === "" ? NaN : Number(text.split(" ± ")[0]));

function compare(a, b) {
  const [x, y] = [asNumber(a), asNumber(b)];
  if (Number.isNaN(x) && Number.isNaN(y)) return a.localeCompare(b);
  return Number.isNaN(x) ? 1 : Number.isNaN(y) ? -1 : x - y;
}

function table(details) {
  const [head, ...rows] = rowsOf(content(details.closest("article"))[details.dataset.table]);
  const place = details.querySelector(".scroll");
  const made = document.createElement("table");
  const line = made.createTHead().insertRow();
  let limit = 200;

  const cell = (text, column) => {
    const td = document.createElement("td");
    if (head[column] === "key") {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.title = "copy the macro of this number";
      button.addEventListener("click", () => copy(`\\ddNumber{${text}}`, "Macro"));
      td.append(button);
    } else {
      td.textContent = text;
      if (!Number.isNaN(asNumber(text))) td.className = "number";
    }
    return td;
  };
  const fill = () => {
    made.tBodies[0]?.remove();
    const body = made.createTBody();
    for (const row of rows.slice(0, limit)) body.insertRow().append(...row.map(cell));
    place.querySelector(".more")?.remove();
    if (rows.length > limit) {
      const more = document.createElement("button");
      more.type = "button";
      more.className = "more";
      more.textContent = `all ${rows.length} rows`;
      more.addEventListener("click", () => { limit = Infinity; fill(); });
      place.append(more);
    }
  };
  head.forEach((name, column) => {
    const th = document.createElement("th");
    th.scope = "col";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      for (const other of line.cells) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => (down ? -1 : 1) * compare(a[column], b[column]));
      fill();
    });
    th.append(button);
    line.append(th);
  });
  place.replaceChildren(made);
  fill();
}

for (const details of document.querySelectorAll("details.table")) {
  details.addEventListener("toggle", () => { if (details.open && !details.querySelector("table")) table(details); });
}

// which figures are shown

const words = new Map(articles.map((article) => [article, article.querySelector("h2").textContent.toLowerCase() + " " +
  article.querySelector("figcaption").textContent.toLowerCase()]));

function filter() {
  const paper = papers.find((button) => button.ariaPressed === "true").dataset.paper;
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const article of articles) {
    article.hidden = !((paper === "*" || article.dataset.paper === paper) && wanted.every((word) => words.get(article).includes(word)));
  }
  const shown = articles.filter((article) => !article.hidden).length;
  document.getElementById("none").hidden = shown > 0;
  return shown;
}

function choose(paper) {
  for (const button of papers) button.ariaPressed = String(button.dataset.paper === paper);
  say(`${filter()} figures`);
}

for (const button of papers) button.addEventListener("click", () => choose(button.dataset.paper));
search.addEventListener("input", filter);

addEventListener("hashchange", () => {  // a link to a figure that the filter hides shows it
  const article = document.getElementById(location.hash.slice(1));
  if (article?.hidden) { search.value = ""; choose("*"); article.scrollIntoView(); }
});

// light and dark: as the system says until one is chosen, and as chosen from then on

const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const stored = { get: () => { try { return localStorage.getItem("ddcore-theme"); } catch { return null; } },
  set: (value) => { try { localStorage.setItem("ddcore-theme", value); } catch { /* a page from a folder may have no store */ } } };

function paint(chosen) {
  document.documentElement.style.colorScheme = chosen ?? "light dark";
  theme.textContent = (chosen ?? (system.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
}

theme.addEventListener("click", () => { stored.set(theme.textContent); paint(theme.textContent); });
system.addEventListener("change", () => paint(stored.get()));
paint(stored.get());

// keys

function step(by) {
  const shown = articles.filter((article) => !article.hidden);
  const now = shown.indexOf(document.activeElement.closest?.("article"));
  const next = shown[now < 0 ? (by > 0 ? 0 : shown.length - 1) : now + by];
  next?.focus({ preventScroll: true });
  next?.scrollIntoView();
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { search.value = ""; choose("*"); search.blur(); return; }
  if (event.target === search) return;
  const act = { j: () => step(1), k: () => step(-1), "/": () => search.focus(), d: () => theme.click() }[event.key];
  if (act) { event.preventDefault(); act(); }
});
