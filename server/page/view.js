// The pictures that are shown, with the saliency of a fusion step over them.

const COLORS = [[59, 125, 216], [208, 112, 59], [138, 92, 208]];  // TDM, SDM, mask

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
}

async function imageOf(base64) {
  return createImageBitmap(new Blob([bytesOf(base64)], { type: "image/png" }));
}

export class View {
  constructor(place, controls) {
    this.place = place;
    this.controls = controls;
    this.figures = [];
    controls.addEventListener("input", () => this.paintAll());
  }

  start(wanted) {
    this.controls.hidden = true;
    this.figures = wanted.map(({ title, people }) => this.figure(title, people));
    this.place.replaceChildren(...this.figures.map((each) => each.element));
  }

  figure(title, people) {
    const element = document.createElement("figure");
    const canvas = Object.assign(document.createElement("canvas"), { width: 256, height: 256 });
    canvas.role = "img";
    canvas.ariaLabel = `Picture, ${title}`;
    const caption = document.createElement("figcaption");
    caption.textContent = title;
    element.append(canvas, caption);
    return { element, canvas, caption, people, image: null, maps: [], title };
  }

  async preview(place, base64) {
    const figure = this.figures[place];
    const image = await imageOf(base64);
    const { canvas } = figure;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  }

  async finish(place, { picture, maps, title, people }) {
    const content = bytesOf(picture.b64_json);
    const entry = {
      seed: picture.seed, title, people, url: URL.createObjectURL(new Blob([content], { type: "image/png" })),
      image: await imageOf(picture.b64_json),
      maps: await Promise.all(maps.map(async (each) => ({ step: each.step, image: await imageOf(each.b64_json) }))),
      forget() { URL.revokeObjectURL(this.url); },
    };
    this.fill(this.figures[place], entry);
    return entry;
  }

  show(entry) {
    this.start([entry]);
    this.fill(this.figures[0], entry);
  }

  clearOf(person) {
    this.figures = this.figures.filter((each) => !each.people.includes(person));
    this.place.replaceChildren(...this.figures.map((each) => each.element));
    if (!this.figures.length) this.controls.hidden = true;
  }

  fill(figure, entry) {
    figure.image = entry.image;
    figure.maps = entry.maps;
    figure.canvas.width = entry.image.width;
    figure.canvas.height = entry.image.height;
    const link = Object.assign(document.createElement("a"), {
      href: entry.url, download: `face-diffuser-${entry.seed}.png`, className: "button", textContent: "Download",
    });
    figure.caption.replaceChildren(`${entry.title}, seed ${entry.seed}`, link);
    this.controls.hidden = !entry.maps.length;
    const range = this.controls.querySelector("input[type=range]");
    range.max = Math.max(0, Math.max(...this.figures.map((each) => each.maps.length)) - 1);
    this.paintAll();
  }

  paintAll() {
    const layer = this.controls.querySelector("input[name=layer]:checked").value;
    const share = this.controls.querySelector("input[type=range]");
    for (const figure of this.figures) {
      if (!figure.image) continue;
      const context = figure.canvas.getContext("2d");
      context.drawImage(figure.image, 0, 0);
      if (!figure.maps.length) continue;
      // The slider's place along the fusion, which has fewer steps in a fast preset.
      const at = Math.round((Number(share.value) / Math.max(1, Number(share.max))) * (figure.maps.length - 1));
      this.controls.querySelector("output").textContent = String(figure.maps[at].step);
      if (layer !== "none") context.drawImage(layerOf(figure.maps[at].image, Number(layer)), 0, 0, figure.canvas.width, figure.canvas.height);
    }
  }
}

// One channel of a map as a colored veil.
function layerOf(image, channel) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, image.width, image.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const level = pixels.data[at + channel];
    pixels.data.set([...COLORS[channel], level * 0.75], at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
