// Copy what the page needs of node_modules into vendor/, so that it asks no other host for anything.

import { copyFileSync, mkdirSync } from "node:fs";

const FILES = {
  "ort.js": "onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
  "ort.wasm": "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
  "tokenizers.js": "@huggingface/tokenizers/dist/tokenizers.min.mjs",
};

const here = new URL(".", import.meta.url);
mkdirSync(new URL("vendor", here), { recursive: true });
for (const [name, from] of Object.entries(FILES)) {
  copyFileSync(new URL(`node_modules/${from}`, here), new URL(`vendor/${name}`, here));
}
