// A row is a prompt, a player is a video. A row has a present frame, and on every screen refresh its players are steered
// towards that frame. Text from the data is inserted as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
const PLAY = "M3 2 L14 8 L3 14 Z";
const PAUSE = "M3 2 H6.5 V14 H3 Z M9.5 2 H13 V14 H9.5 Z";
// Where within a frame a paused player stands. To find the key frame for a time, Chromium rounds it to the ticks of the
// file, and in our files a tick is a frame: in the second half of a frame it would decode from the next one.
const REST = 0.25;
const FAR = 3; // frames: a playing video this far from its row seeks; a nearer one plays faster or slower
const SLOWEST = 0.0625; // the playback rates that Chromium allows; it throws for others
const FASTEST = 16;

const find = (selector, parent = document) => parent.querySelector(selector);
const copyOf = (template) => find(`#${template}`).content.firstElementChild.cloneNode(true);
const own = (object, name) => (Object.hasOwn(object, name) ? object[name] : undefined); // so that "constructor" can be a name
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

class Player {
  near = false; // in the viewport or close to it: the video is loaded
  seen = false; // in the viewport: the video plays

  constructor(cell, experiment, row) {
    this.cell = cell;
    this.experiment = experiment;
    this.row = row;
    this.figure = copyOf("player");
    this.video = find("video", this.figure);
    this.label = find(".frame", this.figure);
    this.note = find(".note", this.figure);
    this.about = find(".about", this.figure);
    this.video.style.aspectRatio = `${cell.width} / ${cell.height}`;
    this.video.setAttribute("aria-label", `${experiment}: ${row.entry.prompt}`);
    this.video.addEventListener("click", () => row.toggle());
    this.video.addEventListener("error", () => { this.failed = true; });
    const showFrame = (now, { mediaTime }) => { // the frame on the screen, not the one that was asked for
      this.label.textContent = `${Math.round(mediaTime * cell.fps)} / ${cell.frames - 1}`;
      this.video.requestVideoFrameCallback(showFrame);
    };
    this.video.requestVideoFrameCallback(showFrame);
  }

  setNear(near) {
    this.near = near;
    this.failed = false;
    if (near) this.video.src = this.cell.src;
    else this.video.removeAttribute("src");
    this.video.load();
  }

  /** The position in frames, as a real number: frame n is shown from n to n + 1. */
  get position() {
    return this.video.ended ? this.cell.frames : this.video.currentTime * this.cell.fps;
  }

  /** Return whether it can play at this frame: it is in the viewport, has no error, and has not ended before. */
  hasMore(frame) {
    return this.seen && !this.failed && frame < this.cell.frames;
  }

  get running() {
    return !this.video.paused && !this.video.seeking && this.video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA;
  }

  seek(position) {
    this.video.currentTime = position / this.cell.fps;
  }

  /** Approach `frame`, while playing at the row's rate (frames per second), or show it while paused. */
  follow(frame, playing, rate) {
    const { video, cell } = this;
    if (video.readyState < HTMLMediaElement.HAVE_METADATA || video.seeking) return;
    if (!playing || !this.hasMore(frame)) {
      video.pause();
      const rest = Math.min(Math.floor(frame), cell.frames - 1) + REST;
      if (Math.abs(this.position - rest) > 0.2) this.seek(rest);
      return;
    }
    const ahead = this.position - frame;
    if (Math.abs(ahead) > (video.paused ? 0.5 : FAR)) {
      this.seek(frame);
    } else if (video.paused && !video.ended) {
      video.play().catch((error) => { if (error.name === "NotAllowedError") this.row.pause(); });
    } else {
      const wanted = (rate / cell.fps) * clamp(1 - ahead / 2, 0.5, 2);
      video.playbackRate = clamp(wanted, SLOWEST, FASTEST);
    }
  }

  /** Update the note and the curve's marker for `frame`. */
  tell(frame) {
    const { cell } = this;
    const notes = [];
    if (this.failed) notes.push("cannot be played");
    else if (frame >= cell.frames) notes.push("holds its last frame");
    if (cell.fromGif) notes.push("from its GIF");
    this.note.textContent = notes.join(", ");
    this.figure.classList.toggle("over", this.failed || frame >= cell.frames);
    if (!this.curve) return;
    const value = this.curve.values[Math.floor(frame / this.curve.window)];
    find(".metric output", this.figure).textContent = value?.toPrecision(4) ?? "";
    const line = find(".curve line", this.figure);
    line.setAttribute("x1", frame + 0.5);
    line.setAttribute("x2", frame + 0.5);
  }

  /** Draw the curve of `metric` over `frames` frames, scaled from `low` to `high`; hide it if the video has none. */
  draw(metric, frames, low, high) {
    this.curve = own(this.cell.curves, metric);
    const svg = find(".curve", this.figure);
    svg.toggleAttribute("hidden", !this.curve);
    find(".metric", this.figure).hidden = !this.curve;
    if (!this.curve) return;
    const height = (value) => (high > low ? 0.92 - (0.84 * (value - low)) / (high - low) : 0.5).toFixed(3);
    let path = "";
    let gap = true;
    const { window, values } = this.curve;
    values.forEach((value, index) => { // a step for each window, as only means over windows are known
      const [start, end] = [index, index + 1].map((edge) => Math.min(edge * window, this.cell.frames));
      if (value !== null) path += `${gap ? "M" : "L"}${start} ${height(value)} H${end}`;
      gap = value === null;
    });
    svg.setAttribute("viewBox", `0 0 ${frames} 1`);
    svg.setAttribute("aria-label", `${metric} over the frames`);
    find("path", svg).setAttribute("d", path);
    find(".metric span", this.figure).textContent = `${low.toPrecision(3)} – ${high.toPrecision(3)}`;
  }
}

class Row {
  frame = 0; // a real number
  playing = !reducedMotion;

  constructor(entry) {
    this.entry = entry;
    this.element = copyOf("row");
    this.scrubber = find("input", this.element);
    this.button = find(".play", this.element);
    this.output = find(".controls output", this.element);
    this.strip = find(".strip", this.element);
    this.words = `${entry.prompt} ${entry.picture ?? ""} seed ${entry.seed}`.toLowerCase();

    const heading = find("h2", this.element);
    const seed = document.createElement("small");
    seed.textContent = [entry.picture, `seed ${entry.seed}`].filter(Boolean).join(", ");
    heading.append(entry.prompt, " ", seed);
    this.scrubber.setAttribute("aria-label", `Frame of: ${entry.prompt}`);
    this.scrubber.addEventListener("input", () => this.pauseAt(Number(this.scrubber.value)));
    this.button.addEventListener("click", () => this.toggle());

    this.players = [];
    for (const experiment of data.experiments) {
      const cell = own(entry.cells, experiment);
      if (cell) this.players.push(new Player(cell, experiment, this));
      const figure = cell ? this.players.at(-1).figure : copyOf("missing");
      find(".experiment", figure).textContent = experiment;
      figure.dataset.experiment = experiment;
      this.strip.append(figure);
    }
  }

  get seen() {
    return this.players.some((player) => player.seen);
  }

  /** After a change of the shown videos, take the number of frames and the frame rate from the longest one. */
  measure(metric) {
    this.shown = this.players.filter((player) => !player.figure.hidden);
    if (this.shown.length === 0) return;
    const longest = this.shown.reduce((a, b) => (b.cell.frames > a.cell.frames ? b : a));
    this.frames = longest.cell.frames;
    this.rate = longest.cell.fps;
    this.frame = Math.min(this.frame, this.frames - 1);
    this.scrubber.max = this.frames - 1;
    const values = this.shown.flatMap((player) => own(player.cell.curves, metric)?.values ?? []).filter((value) => value !== null);
    for (const player of this.shown) player.draw(metric, this.frames, Math.min(...values), Math.max(...values));
    this.told = null;
  }

  pauseAt(frame) {
    this.playing = false;
    this.frame = clamp(Math.floor(frame), 0, this.frames - 1);
  }

  pause() {
    this.pauseAt(this.frame);
  }

  toggle() {
    if (this.playing) this.pause();
    else this.playing = true;
  }

  /** Advance by `seconds` if it plays and is in the viewport, and steer its players. */
  tick(seconds) {
    const players = this.shown.filter((player) => player.near);
    if (this.playing && this.seen) this.advance(seconds, players.filter((player) => player.hasMore(this.frame)));
    for (const player of players) player.follow(this.frame, this.playing, this.rate);
    this.tell();
  }

  /** Set the row to the mean position of its players, so that a delay that all have in common is not corrected. */
  advance(seconds, players) {
    const running = players.filter((player) => player.running);
    if (running.length) this.frame = mean(running.map((player) => player.position));
    else if (!players.some((player) => !player.video.ended)) this.frame += seconds * this.rate; // all players show their last frame
    if (this.frame >= this.frames) this.frame = 0;
  }

  tell() {
    const frame = Math.floor(this.frame);
    const told = `${frame} ${this.playing} ${this.shown.map((player) => player.failed)}`;
    if (told === this.told) return;
    this.told = told;
    this.scrubber.value = frame;
    this.scrubber.style.setProperty("--done", frame / Math.max(this.frames - 1, 1));
    this.scrubber.setAttribute("aria-valuetext", `frame ${frame}, the last is ${this.frames - 1}`);
    this.output.textContent = `frame ${frame} / ${this.frames - 1}`;
    this.button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    find("path", this.button).setAttribute("d", this.playing ? PAUSE : PLAY);
    for (const player of this.shown) player.tell(frame);
  }
}

const rows = data.rows.map((entry) => new Row(entry));
const players = rows.flatMap((row) => row.players);
find("#rows").append(...rows.map((row) => row.element));

// Only videos in the viewport play, and only those near it are loaded: browsers limit open videos to some dozens.
const playerOf = new Map(players.map((player) => [player.figure, player]));
const observe = (margin, act) => {
  const observer = new IntersectionObserver(
    (entries) => entries.forEach((entry) => act(playerOf.get(entry.target), entry.isIntersecting)),
    { rootMargin: margin, scrollMargin: margin },
  );
  for (const player of players) observer.observe(player.figure);
};
observe("400px", (player, near) => { if (near !== player.near) player.setNear(near); });
observe("0px", (player, seen) => { player.seen = seen; });

// Keep columns aligned: all rows scroll sideways together.
for (const { strip } of rows) {
  strip.addEventListener("scroll", () => { for (const row of rows) row.strip.scrollLeft = strip.scrollLeft; });
}

// Filters.
const search = find("#search");
const metric = find("#metric select");
const boxes = data.experiments.map((experiment) => {
  const [label, box] = ["label", "input"].map((name) => document.createElement(name));
  Object.assign(box, { type: "checkbox", checked: true, value: experiment });
  label.append(box, experiment);
  find("#experiments").append(label);
  box.addEventListener("change", filter);
  return box;
});
const metrics = [...new Set(players.flatMap((player) => Object.keys(player.cell.curves)))].sort();
metric.append(...metrics.map((name) => new Option(name)));
find("#metric").hidden = metrics.length === 0;
search.addEventListener("input", filter);
metric.addEventListener("change", filter);

function filter() {
  const words = search.value.toLowerCase().split(/\s+/);
  const chosen = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  for (const row of rows) {
    for (const figure of row.strip.children) figure.hidden = !chosen.has(figure.dataset.experiment);
    row.measure(metric.value);
    row.element.hidden = row.shown.length === 0 || !words.every((word) => row.words.includes(word));
  }
  const count = rows.filter((row) => !row.element.hidden).length;
  find("#shown").textContent = `${count} of ${rows.length} prompts`;
  find("#nothing").hidden = count > 0;
}
filter();

// Play and pause: all rows by the button; by a key the row with the focus, or else all in the viewport.
const playAll = find("#play-all");
const somePlay = (some) => some.some((row) => row.playing);
const setPlaying = (some, playing) => some.forEach((row) => { if (row.playing !== playing) row.toggle(); });
playAll.addEventListener("click", () => setPlaying(rows, !somePlay(rows)));

function meant() {
  const focused = rows.filter((row) => row.element.contains(document.activeElement));
  return focused.length ? focused : rows.filter((row) => row.seen);
}

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  if (key === "Escape") hideSettings();
  if (target.matches("select, input[type=search]")) return;
  if (key === " " && !target.matches("button, summary, input[type=checkbox]")) {
    event.preventDefault();
    const some = meant();
    setPlaying(some, !somePlay(some));
  }
  const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (step && !target.matches("input[type=range]")) { // the browser moves a slider itself
    event.preventDefault();
    for (const row of meant()) row.pauseAt(row.frame + step);
  }
});

// Settings: shown while the pointer or the focus is on a button, and kept open by a click.
const panel = find("#settings");
let opened = null; // the player
let kept = false;

function showSettings(player) {
  hideSettings();
  opened = player;
  const { settings } = player.cell;
  const others = player.row.players.map((other) => other.cell.settings);
  const differs = (name) => others.some((other) => other[name] !== settings[name]);
  const names = Object.keys(settings).sort((a, b) => differs(b) - differs(a));
  find("h3", panel).textContent = player.experiment;
  find("dl", panel).replaceChildren(...names.flatMap((name) => {
    const [term, value] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    value.textContent = settings[name];
    for (const part of [term, value]) part.classList.toggle("differs", differs(name));
    return [term, value];
  }));
  panel.hidden = false;
  panel.scrollTop = 0;
  player.about.setAttribute("aria-expanded", "true");
  player.about.setAttribute("aria-describedby", "settings");
  placeSettings();
}

function placeSettings() {
  if (!opened) return;
  const button = opened.about.getBoundingClientRect();
  const above = button.top - panel.offsetHeight - 6;
  panel.style.left = `${clamp(button.right - panel.offsetWidth, 8, innerWidth - panel.offsetWidth - 8)}px`;
  panel.style.top = `${above > 8 ? above : Math.min(button.bottom + 6, innerHeight - panel.offsetHeight - 8)}px`;
}

function hideSettings() {
  opened?.about.setAttribute("aria-expanded", "false");
  opened?.about.removeAttribute("aria-describedby");
  panel.hidden = true;
  opened = null;
  kept = false;
}

for (const player of players) {
  const { about } = player;
  about.setAttribute("aria-label", `Settings of ${player.experiment}`);
  for (const event of ["mouseenter", "focus"]) about.addEventListener(event, () => { if (!kept) showSettings(player); });
  for (const event of ["mouseleave", "blur"]) about.addEventListener(event, () => { if (!kept) hideSettings(); });
  about.addEventListener("click", () => {
    const keep = !(kept && opened === player);
    hideSettings();
    if (keep) showSettings(player);
    kept = keep;
  });
}
document.addEventListener("scroll", placeSettings, { capture: true });
window.addEventListener("resize", placeSettings);

// Light and dark: as in the system, until the button is pressed.
const theme = find("#theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const chosen = document.documentElement.style;
const isDark = () => (chosen.colorScheme ? chosen.colorScheme === "dark" : system.matches);
const nameTheme = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
theme.addEventListener("click", () => {
  chosen.colorScheme = isDark() ? "light" : "dark";
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();

// Videos that could not be read.
find("#problems").hidden = data.problems.length === 0;
find("#problems summary").textContent = `Left out: ${data.problems.length}`;
find("#problems ul").append(...data.problems.map((problem) => {
  const item = document.createElement("li");
  item.textContent = problem;
  return item;
}));

let last = performance.now();
function everyScreen(now) {
  const seconds = Math.min((now - last) / 1000, 0.1); // no jump after the tab was in the background
  last = now;
  for (const row of rows) row.tick(seconds);
  const name = somePlay(rows) ? "Pause all" : "Play all";
  if (playAll.textContent !== name) playAll.textContent = name;
  requestAnimationFrame(everyScreen);
}
requestAnimationFrame(everyScreen);
