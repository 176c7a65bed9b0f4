// Caption pictures with Hugging Face's transformers.js, from the folder of an export:
//
//     node caption.mjs [--pillow] FOLDER PICTURE ...
//
// With --pillow pictures are read and resized here as img2seq does it, without as the library does.

import { resolve } from "node:path";
import { env, pipeline, RawImage } from "@huggingface/transformers";
import sharp from "sharp";
import { resize } from "../browser/resize.js";

const words = process.argv.slice(2);
const [folder, ...pictures] = words.filter((word) => word !== "--pillow");
if (!pictures.length) {
  console.error("node caption.mjs [--pillow] FOLDER PICTURE ...");
  process.exit(2);
}

env.allowRemoteModels = false; // nothing is downloaded
const captioner = await pipeline("image-to-text", resolve(folder));
const { width, height } = captioner.processor.image_processor.size;

/** Return a picture upright, over white, with its colour profile left alone, in the size that the model looks at. */
async function asPillow(picture) {
  const upright = sharp(picture, { ignoreIcc: true }).autoOrient().flatten({ background: "white" }).toColourspace("srgb");
  const { data, info } = await upright.raw().toBuffer({ resolveWithObject: true });
  const { data: colours } = new RawImage(data, info.width, info.height, info.channels).rgb();
  return new RawImage(resize(colours, info.width, info.height, width, height, 3), width, height, 3); // is resized no more
}

for (const picture of pictures) {
  const [{ generated_text: caption }] = await captioner(words.includes("--pillow") ? await asPillow(picture) : resolve(picture));
  console.log(`${picture}\t${caption}`);
}
