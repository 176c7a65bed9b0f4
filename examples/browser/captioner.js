// An export of `img2seq export RUN DIR --onnx`, through ONNX Runtime in the browser: reads the folder's files, captions pictures.

import { Tokenizer } from "./vendor/tokenizers.js";
import * as ort from "./vendor/ort.js";
import { readPicture } from "./picture.js";
import { search, settingsOf } from "./search.js";

ort.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("./vendor/ort.wasm", import.meta.url).href };

export class Captioner {
  /** Load the export in a folder of this host, given as a URL that ends with a slash. */
  static async load(folder) {
    const names = ["config", "generation_config", "preprocessor_config", "tokenizer", "tokenizer_config"];
    const [config, generation, preprocessor, tokenizer, tokenizerConfig] = await Promise.all(names.map((name) => json(folder, `${name}.json`)));
    if (!config.img2seq) {
      throw new Error("it is not an export of img2seq");
    }
    const settings = settingsOf(config.img2seq.decoding);
    const sessions = await Promise.all(["encoder_model", "decoder_model_merged"].map((name) => session(folder, `onnx/${name}.onnx`)));
    return new Captioner(config, settings, generation, preprocessor, new Tokenizer(tokenizer, tokenizerConfig), ...sessions);
  }

  constructor(config, settings, generation, preprocessor, tokenizer, encoder, decoder) {
    Object.assign(this, { config, settings, generation, preprocessor, tokenizer, encoder, decoder });
    const { n_layer: layers, n_head: heads, n_embd: width } = config.decoder;
    this.kept = Array.from({ length: layers }, (_, n) => [`${n}.key`, `${n}.value`]).flat();
    this.heads = heads;
    this.headWidth = width / heads;
    this.channels = preprocessor.image_mean.length;
    if (this.channels === 4) {
      throw new Error("its model looks at transparency, which this page does not keep");
    }
  }

  /** Return the caption of a picture's file. */
  async caption(file) {
    const { size, crop_size: crop } = this.preprocessor;
    const mostPixels = this.config.img2seq.max_pixels;
    const pixels = await readPicture(file, { size, crop, channels: this.channels, mostPixels });
    return this.captionPixels(pixels, crop ?? size);
  }

  async captionPixels(pixels, { height, width }) {
    const feeds = { pixel_values: new ort.Tensor("float32", this.#normalised(pixels), [1, this.channels, height, width]) };
    const { last_hidden_state: memory } = await this.encoder.run(feeds);
    const { max_length, suppress_tokens: never, bos_token_id: begin, eos_token_id: end } = this.generation;
    const tokens = await search(this.#step(memory), { begin, end, never, longest: max_length - 1, settings: this.settings });
    return tokens.length ? this.tokenizer.decode(tokens) : "";
  }

  /** Return (channels, height, width) numbers of (height, width, channels) bytes. */
  #normalised(pixels) {
    const { image_mean: mean, image_std: std, rescale_factor: scale } = this.preprocessor;
    const places = pixels.length / this.channels;
    return Float32Array.from({ length: pixels.length }, (_, i) => {
      const channel = Math.floor(i / places);
      return (pixels[(i % places) * this.channels + channel] * scale - mean[channel]) / std[channel];
    });
  }

  /** Return what answers a search: the decoder, with the keys and values of the tokens so far. */
  #step(memory) {
    let past = null;
    return async (tokens, parents) => {
      const feeds = { encoder_hidden_states: memory, input_ids: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [tokens.length, 1]) };
      for (const name of this.kept) {
        const before = past?.[`present.${name}`] ?? new ort.Tensor("float32", [], [tokens.length, this.heads, 0, this.headWidth]);
        feeds[`past_key_values.${name}`] = rowsOf(before, parents);
      }
      past = await this.decoder.run(feeds);
      const vocabulary = past.logits.dims[2];
      return tokens.map((_, row) => past.logits.data.slice(row * vocabulary, (row + 1) * vocabulary));
    };
  }
}

/** Return a tensor with these rows of it. */
function rowsOf(tensor, rows) {
  const size = tensor.data.length / tensor.dims[0];
  const data = new Float32Array(tensor.data.length);
  rows.forEach((row, i) => data.set(tensor.data.subarray(row * size, (row + 1) * size), i * size));
  return new ort.Tensor("float32", data, tensor.dims);
}

async function get(folder, name) {
  const response = await fetch(new URL(name, folder)).catch(() => ({ ok: false, status: "no answer" }));
  if (!response.ok) {
    throw new Error(`${name} cannot be read (${response.status})`);
  }
  return response;
}

async function json(folder, name) {
  const response = await get(folder, name);
  return response.json().catch(() => {
    throw new Error(`${name} is not JSON`);
  });
}

async function session(folder, name) {
  const graph = await (await get(folder, name)).arrayBuffer();
  return ort.InferenceSession.create(graph, { executionProviders: ["wasm"] }).catch(() => {
    throw new Error(`${name} is no graph that ONNX Runtime reads`);
  });
}
