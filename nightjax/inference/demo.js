// SPDX-License-Identifier: Apache-2.0
const byId = (id) => document.getElementById(id);

async function segment(photo) {
  byId("status").textContent = "Segmenting…";
  byId("image").src = URL.createObjectURL(photo);
  const began = performance.now();
  const answer = await fetch("segment", { method: "POST", body: photo });
  if (!answer.ok) {
    byId("status").textContent = await answer.text();
    byId("results").hidden = true;
    byId("legend").replaceChildren();
    return;
  }
  const found = await answer.json();
  byId("overlay").src = found.overlay;
  byId("confidence").src = found.confidence;
  byId("legend").replaceChildren(...found.classes.map(({ name, color, share }) => {
    const item = document.createElement("li"), swatch = document.createElement("i");
    swatch.style.background = color;
    item.append(swatch, `${name} ${share} %`);
    return item;
  }));
  byId("results").hidden = false;
  byId("status").textContent = `Segmented in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
}

function take(photo) {
  segment(photo).catch((error) => { byId("status").textContent = `The server does not answer: ${error.message}`; });
}

async function start() {
  const { about, examples } = await (await fetch("about.json")).json();
  byId("about").replaceChildren(...about.split(/(--\w+)/).map((part) => {
    if (!part.startsWith("--")) return part;
    const flag = document.createElement("code");
    flag.append(part);
    return flag;
  }));
  byId("examples").replaceChildren(...examples.map((name, i) => {
    const button = document.createElement("button"), image = document.createElement("img");
    image.src = `examples/${name}`;
    image.alt = `Rendered night street ${i + 1}`;
    button.append(image);
    button.addEventListener("click", async () => take(await (await fetch(image.src)).blob()));
    return button;
  }));
}

const drop = byId("drop");
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
});
byId("file").addEventListener("change", (event) => { if (event.target.files.length) take(event.target.files[0]); });
start();
