// The page of `python -m server`: people, a prompt, a picture as it comes. It asks its own server and nobody else.
import { Client, ServerError } from "./client.js";
import { View } from "./view.js";

const by = (id) => document.getElementById(id);
const client = new Client(() => sessionStorage.getItem("key"));
const people = [];   // {id, name, url}: the photo's url is this tab's own, the server keeps no photo
const history = [];
const PRESETS = [
  { name: "quality", about: "quality: 50 steps", words: { preset: "quality" } },
  { name: "balanced", about: "balanced: 20 steps", words: { preset: "balanced" } },
  { name: "fast", about: "fast: 10 steps", words: { preset: "fast" } },
];
const view = new View(by("shown"), by("overlay"));
let running = null;  // {ids: Set, stopped}

for (const { name, about } of PRESETS) by("preset").append(new Option(about, name));

function tell(error) {
  const problem = by("problem");
  problem.hidden = !error;
  problem.textContent = error ? error.message : "";
  by("key-form").hidden = !(error instanceof ServerError && error.status === 401);
}

async function attempt(work) {
  tell(null);
  try {
    return await work();
  } catch (error) {
    tell(error);
    return undefined;
  }
}

// People

function uniqueName(file) {
  const base = file.name.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}_-]+/gu, "_").slice(0, 20) || "person";
  let name = base;
  for (let n = 2; people.some((each) => each.name === name); n++) name = `${base}${n}`;
  return name;
}

async function addPhotos(files) {
  if (!by("consent").checked) {
    tell(new Error("Say first that the people in these photos agree."));
    by("consent").focus();
    return;
  }
  for (const file of files) {
    await attempt(async () => {
      const { id } = await client.addIdentity(file);
      people.push({ id, name: uniqueName(file), url: URL.createObjectURL(file) });
      showPeople();
    });
  }
}

function showPeople() {
  by("people").replaceChildren(...people.map(personItem));
  showReading();
}

function personItem(person) {
  const item = document.createElement("li");
  const picture = Object.assign(document.createElement("img"), { src: person.url, alt: "" });
  const name = Object.assign(document.createElement("input"), { value: person.name, ariaLabel: "Name" });
  name.addEventListener("change", () => rename(person, name));
  const use = Object.assign(document.createElement("button"), { type: "button", textContent: "Use", ariaLabel: `Use ${person.name} in the prompt` });
  use.addEventListener("click", () => insert(`@${person.name} `));
  const remove = Object.assign(document.createElement("button"), {
    type: "button", className: "remove", textContent: "Delete face", ariaLabel: `Delete the face of ${person.name} from the server`,
  });
  remove.addEventListener("click", () => attempt(() => removePerson(person)));
  item.append(picture, name, use, remove);
  return item;
}

function rename(person, field) {
  const name = field.value.replace(/[^\p{L}\p{N}_-]+/gu, "_");
  if (name && !people.some((each) => each !== person && each.name === name)) {
    by("prompt").value = by("prompt").value.replaceAll(mention(person.name), `@${name}`);
    person.name = name;
  }
  showPeople();
}

async function removePerson(person) {
  await client.removeIdentity(person.id);
  URL.revokeObjectURL(person.url);
  people.splice(people.indexOf(person), 1);
  // Pictures of the person go too, here as on the server.
  for (const entry of history.filter((each) => each.people.includes(person.id))) {
    entry.forget();
    history.splice(history.indexOf(entry), 1);
  }
  view.clearOf(person.id);
  showHistory();
  showPeople();
  by("status").textContent = `The face of ${person.name} is deleted, and the pictures that were drawn of it.`;
}

// Prompt: @name stands for a person

const mention = (name) => new RegExp(`@${name.replace(/[-]/g, "\\-")}(?![\\p{L}\\p{N}_-])`, "gu");
const MENTION = /@([\p{L}\p{N}_-]+)/gu;

function insert(text) {
  const field = by("prompt");
  const before = field.value.slice(0, field.selectionStart);
  const space = before && !before.endsWith(" ") ? " " : "";
  field.setRangeText(space + text, field.selectionStart, field.selectionEnd, "end");
  field.focus();
  showReading();
}

function readPrompt() {
  const named = [];
  const prompt = by("prompt").value.replace(MENTION, (whole, name) => {
    named.push({ name, person: people.find((each) => each.name === name) });
    return "<|image|>";
  });
  return { prompt, named };
}

function showReading() {
  const parts = [];
  let end = 0;
  for (const found of by("prompt").value.matchAll(MENTION)) {
    parts.push(by("prompt").value.slice(end, found.index));
    const known = people.some((each) => each.name === found[1]);
    const chip = document.createElement("span");
    chip.className = known ? "chip" : "chip missing";
    chip.textContent = known ? found[1] : `${found[1]}?`;
    parts.push(chip);
    end = found.index + found[0].length;
  }
  by("reads").replaceChildren(...(parts.length ? [...parts, by("prompt").value.slice(end)] : []));
}

function wish(preset, seed) {
  const { prompt, named } = readPrompt();
  const missing = named.find((each) => !each.person);
  if (missing) throw new Error(`There is no person @${missing.name}: add a photo, or choose one of the people with "Use".`);
  if (!named.length) throw new Error('Say who is in the picture: add a photo, then press "Use" after their word in the prompt.');
  return {
    prompt, identities: named.map((each) => each.person.id), seed, ...preset.words,
    guidance_scale: Number(by("guidance").value), stream: true, preview: true, saliency: true,
  };
}

// Drawing

async function draw(presets) {
  await attempt(async () => {
    const given = by("seed").value;
    const seed = given === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(given);
    const wishes = presets.map((preset) => ({ preset, body: wish(preset, seed) }));
    running = { id: null, stopped: false };
    setBusy(true);
    view.start(wishes.map(({ preset, body }) => ({ title: preset.about, people: body.identities })));
    for (const [place, { preset, body }] of wishes.entries()) {
      if (running.stopped) break;
      await drawOne(place, preset, body);
    }
  });
  setBusy(false);
  running = null;
}

async function drawOne(place, preset, body) {
  const bar = by("progress");
  bar.replaceChildren();
  bar.hidden = false;
  const maps = [];
  let picture = null;
  for await (const { name, data } of client.draw(body)) {
    if (name === "queued") {
      running.id = data.id;
      by("status").textContent = data.position ? `Waiting; ${data.position} before this one.` : "Waiting for the engine.";
      if (running.stopped) await client.cancel(data.id);
    } else if (name === "step") {
      showStep(bar, data);
    } else if (name === "preview") {
      await view.preview(place, data.b64_json);
    } else if (name === "saliency") {
      maps.push(data);
    } else if (name === "picture") {
      picture = data;
    } else if (name === "cancelled") {
      by("status").textContent = "Cancelled.";
    } else if (name === "error") {
      throw new Error(data.message);
    } else if (name === "done") {
      const entry = await view.finish(place, { picture, maps, title: preset.about, people: body.identities });
      history.unshift(entry);
      showHistory();
      by("status").textContent = `Seed ${picture.seed}, ${(data.timings_ms.total / 1000).toFixed(1)} s on ${data.provider}.`;
      const unread = data.unread.prompt;
      if (unread) tell(new Error(`The model did not read the prompt's end: "${unread}"`));
    }
  }
}

function showStep(bar, { step, of, stage }) {
  while (bar.children.length < of) bar.append(document.createElement("i"));
  bar.children[step - 1].className = stage;
  bar.ariaValueMax = of;
  bar.ariaValueNow = step;
  bar.ariaValueText = `${stage}, step ${step} of ${of}`;
  by("status").textContent = `${{ scene: "Scene (TDM)", fusion: "Fusion (both models)", subject: "People (SDM)" }[stage]}, step ${step} of ${of}.`;
}

function setBusy(busy) {
  by("draw").disabled = by("compare").disabled = busy;
  by("cancel").disabled = !busy;
}

function showHistory() {
  by("history").replaceChildren(...history.map((entry) => {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", ariaLabel: `Show the picture of seed ${entry.seed}, ${entry.title}` });
    button.append(Object.assign(document.createElement("img"), { src: entry.url, alt: "" }));
    button.addEventListener("click", () => view.show(entry));
    item.append(button);
    return item;
  }));
}

// What a person does

by("photos").addEventListener("change", async (event) => {
  await addPhotos([...event.target.files]);
  event.target.value = "";
});
by("drop").addEventListener("dragover", (event) => { event.preventDefault(); by("drop").classList.add("over"); });
by("drop").addEventListener("dragleave", () => by("drop").classList.remove("over"));
by("drop").addEventListener("drop", async (event) => {
  event.preventDefault();
  by("drop").classList.remove("over");
  await addPhotos([...event.dataTransfer.files]);
});
by("prompt").addEventListener("input", showReading);
by("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!running) await draw([PRESETS.find((each) => each.name === by("preset").value)]);
});
by("compare").addEventListener("click", () => draw(PRESETS));
by("cancel").addEventListener("click", () => attempt(async () => {
  running.stopped = true;
  if (running.id) await client.cancel(running.id);
}));
by("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", by("key").value);
  tell(null);
});
