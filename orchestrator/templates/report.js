"use strict";
// The page's behaviour: colour scheme, tooltips of the frontier, and tables that sort, search and
// turn pages. Whatever comes from the data is written as text, never as markup.
(() => {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  const scheme = document.getElementById("scheme");
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { scheme.textContent = dark() ? "Light page" : "Dark page"; };
  scheme.hidden = false;
  scheme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();

  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return JSON.parse(await new Response(stream).text());
  };

  const Z = 1.959963984540054;
  const wilson = (k, n) => {
    const p = k / n, s = 1 + Z * Z / n, centre = (p + Z * Z / (2 * n)) / s;
    const half = Z * Math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)) / s;
    return [k === 0 ? 0 : Math.max(0, centre - half), k === n ? 1 : Math.min(1, centre + half)];
  };
  const percent = (share) => (100 * share).toFixed(share > 0 && share < 1 ? 1 : 0);

  class Table {
    constructor(box, data) {
      this.box = box; this.data = data;
      this.size = 25; this.page = 0; this.sorted = null; this.down = true;
      this.count = (data.columns[0].values.length || data.columns[0].k.length);
      this.texts = Array.from({ length: this.count }, (_, row) =>
        data.columns.filter((c) => c.kind === "text").map((c) => c.values[row]).join(" ").toLowerCase());
      this.order = this.all = Array.from({ length: this.count }, (_, row) => row);
      this.heads = [...box.querySelectorAll("thead th")];
      this.heads.forEach((head, column) => {
        const button = make("button", { type: "button" });
        button.append(...head.childNodes, make("i", { "aria-hidden": "true" }));
        button.addEventListener("click", () => this.sort(column));
        head.append(button);
      });
      this.search = make("input", { type: "search", placeholder: "Search", "aria-label": `Search in: ${data.label}` });
      this.search.addEventListener("input", () => this.find());
      this.back = make("button", { type: "button" }, "Back");
      this.next = make("button", { type: "button" }, "Next");
      this.back.addEventListener("click", () => this.turn(-1));
      this.next.addEventListener("click", () => this.turn(1));
      this.said = make("span", { role: "status", "aria-live": "polite" });
      box.prepend(make("div", { class: "controls" }, this.search, this.said, this.back, this.next));
      this.show();
    }
    value(column, row) {
      const c = this.data.columns[column];
      if (c.k.length) return c.k[row] === null || !c.n[row] ? null : c.k[row] / c.n[row];
      return c.values[row];
    }
    sort(column) {
      this.down = this.sorted === column ? !this.down : this.data.columns[column].kind !== "text";
      this.sorted = column;
      const sign = this.down ? -1 : 1;
      const compare = (a, b) => {
        const x = this.value(column, a), y = this.value(column, b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return (x < y ? -sign : x > y ? sign : 0) || a - b;
      };
      this.order = [...this.order].sort(compare); this.all = [...this.all].sort(compare);
      this.heads.forEach((head, i) => i === column
        ? head.setAttribute("aria-sort", this.down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
      this.page = 0; this.show();
    }
    find() {
      const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.order = this.all.filter((row) => words.every((word) => this.texts[row].includes(word)));
      this.page = 0; this.show();
    }
    turn(by) { this.page += by; this.show(); }
    show() {
      const last = Math.max(0, Math.ceil(this.order.length / this.size) - 1), start = this.page * this.size;
      const rows = this.order.slice(start, start + this.size);
      this.box.querySelector("tbody").replaceChildren(...rows.map((row) => this.row(row)));
      this.said.textContent = rows.length ? `${start + 1}–${start + rows.length} of ${this.order.length}` : "none found";
      this.back.disabled = this.page === 0; this.next.disabled = this.page >= last;
    }
    row(row) {
      return make("tr", {}, ...this.data.columns.map((c, i) => {
        const cell = i === 0 ? make("th", { scope: "row" }) : make("td", { class: c.kind });
        if (!c.k.length) cell.append(c.values[row] === null ? "–" : String(c.values[row]));
        else if (c.k[row] === null || !c.n[row]) cell.append("–");
        else {
          const [low, high] = wilson(c.k[row], c.n[row]);
          if (c.kind === "hits" && c.k[row] > 0) cell.classList.add("hit");
          cell.append(make("b", {}, `${percent(c.k[row] / c.n[row])}\u202f%`),
            make("small", {}, `${c.k[row]}/${c.n[row]} (${percent(low)}–${percent(high)})`));
        }
        return cell;
      }));
    }
  }

  const tooltips = (points) => {
    const tip = make("div", { id: "tip", role: "tooltip", hidden: "" });
    document.body.append(tip);
    const show = (mark, point) => {
      const list = make("dl");
      for (const [term, text] of point.lines) list.append(make("dt", {}, term), make("dd", {}, text));
      const pictures = point.pictures.map((source) => make("img", { src: source, alt: "", width: 44, height: 44 }));
      tip.replaceChildren(make("strong", {}, point.title), list, ...pictures);
      tip.hidden = false;
      const at = mark.getBoundingClientRect(), wide = document.documentElement.clientWidth;
      const left = at.right + 12 + tip.offsetWidth < wide ? at.right + 12 : Math.max(8, at.left - 12 - tip.offsetWidth);
      tip.style.left = `${left + scrollX}px`;
      tip.style.top = `${Math.max(8, at.top + scrollY - 20)}px`;
    };
    const hide = () => { tip.hidden = true; };
    for (const mark of document.querySelectorAll('svg [id*="-trial-"]')) {
      const point = points[mark.id.replace(/^.*-trial-/, "")];
      if (!point) continue;
      const title = mark.querySelector("title");
      mark.closest("svg").setAttribute("role", "group"); // an image would hide its points from readers
      mark.setAttribute("role", "img");
      mark.setAttribute("aria-label", title ? title.textContent : point.title);
      if (title) title.remove();
      mark.setAttribute("tabindex", "0");
      for (const event of ["mouseenter", "focus"]) mark.addEventListener(event, () => show(mark, point));
      for (const event of ["mouseleave", "blur"]) mark.addEventListener(event, hide);
    }
    addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  };

  unpack(document.getElementById("data").textContent.trim()).then(({ tables, points }) => {
    for (const box of document.querySelectorAll("[data-table]")) new Table(box, tables[box.dataset.table]);
    tooltips(points);
    document.documentElement.dataset.ready = "yes";
  });
})();
