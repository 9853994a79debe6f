// Texts that strangers wrote are only ever textContent.
const SHOWN = 10;
const MATCHES = 8;
const at = (id) => document.getElementById(id);

/** The bytes of a file of this folder, or of one that was put into this page. */
async function bytes(name) {
  const inside = at(name);
  if (inside === null) {
    const answer = await fetch(name);
    if (!answer.ok) throw new Error(`${name} is not there`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  const text = atob(inside.textContent.trim());
  const packed = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) packed[place] = text.charCodeAt(place);
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

async function library(name) {
  if (at(name) === null) return import(`./${name}`);
  return import(URL.createObjectURL(new Blob([await bytes(name)], { type: "text/javascript" })));
}

const json = async (name) => JSON.parse(new TextDecoder().decode(await bytes(name)));

/** From numbers of items to a score for each item. */
async function scorer() {
  const [ort, wasm, model] = await Promise.all([
    library("ort.wasm.bundle.min.mjs"),
    bytes("ort-wasm-simd-threaded.wasm"),
    bytes("model.onnx"),
  ]);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return async (history) => {
    const asked = new ort.Tensor("int64", BigInt64Array.from(history.map(BigInt)), [history.length]);
    const { scores } = await session.run({ history: asked }, ["scores"]);
    return scores.data;
  };
}

function best(scores, history) {
  const seen = new Set(history);
  const rest = Array.from(scores.keys()).filter((item) => !seen.has(item) && scores[item] > -Infinity);
  return rest.sort((one, other) => scores[other] - scores[one] || one - other).slice(0, SHOWN);
}

/** A name, whose direction of writing changes nothing beside it. */
function named(text) {
  const name = document.createElement("bdi");
  name.textContent = text;
  return name;
}

function pressed(what, label, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(what);
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

function entry(...parts) {
  const item = document.createElement("li");
  item.append(...parts);
  return item;
}

async function begin() {
  const [scoresOf, titles] = await Promise.all([scorer(), json("titles.json")]);
  const plain = titles.map((title) => title.toLowerCase());
  const history = [];
  let asked = 0;

  async function recommend() {
    const turn = ++asked;
    const found = best(await scoresOf(history), history);
    if (turn !== asked) return; // something was added meanwhile
    at("found").replaceChildren(...found.map((item) => entry(named(titles[item]))));
    performance.mark("recommended");
  }

  function show() {
    const taken = history.map((item, place) =>
      entry(
        named(titles[item]),
        pressed("Remove", `Remove ${titles[item]}`, () => {
          history.splice(place, 1);
          show();
          at("search").focus();
        }),
      ),
    );
    at("chosen").replaceChildren(...taken);
    return recommend();
  }

  function match() {
    const wanted = at("search").value.trim().toLowerCase();
    const found = [];
    for (let item = 0; wanted && item < plain.length; item++) {
      if (plain[item].includes(wanted) && !history.includes(item)) found.push(item);
    }
    const shown = found.slice(0, MATCHES);
    const count = found.length > MATCHES ? `${MATCHES} of ${found.length}` : found.length || "no";
    const add = (item) => () => {
      history.push(item);
      at("search").value = "";
      match();
      at("search").focus();
      show();
    };
    at("matches").replaceChildren(...shown.map((item) => entry(pressed(named(titles[item]), titles[item], add(item)))));
    at("hint").textContent = wanted ? `${count} names` : "Type a part of a name, and choose one.";
  }

  at("search").addEventListener("input", match);
  at("search").disabled = false;
  match();
  await show();
}

begin().catch((error) => {
  at("hint").textContent = `The model cannot be loaded: ${error.message}`;
});
