// A picture file becomes pixels as img2seq makes them: upright, over white, no colour profile applied, resized as Pillow does.

import { resize } from "./resize.js";

/**
 * Return a picture's pixels, rows of `channels` bytes each.
 *
 * @param {Blob} file of any format that the browser reads.
 * @param {{height: number, width: number}} size that it is resized to.
 * @param {{height: number, width: number} | undefined} crop the middle of that, where the model looks at less.
 * @param {1 | 3} channels gray or colours.
 */
export async function readPicture(file, { size, crop, channels, mostPixels }) {
  const image = await decoded(file, 2 * Math.max(size.height, size.width));
  const { width, height } = image;
  if (width * height > mostPixels) {
    image.close();
    throw new Error(`it has ${(width * height).toLocaleString()} pixels, more than the ${mostPixels.toLocaleString()} that are read`);
  }
  const canvas = new OffscreenCanvas(width, height);
  const drawing = canvas.getContext("2d", { willReadFrequently: true });
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, width, height);
  drawing.drawImage(image, 0, 0);
  image.close();
  const colours = drawing.getImageData(0, 0, width, height).data;
  const pixels = resize(channels === 1 ? gray(colours) : withoutAlpha(colours), width, height, size.width, size.height, channels);
  return crop ? middle(pixels, size, crop, channels) : pixels;
}

/** Decode a file; JPEG at a half, a quarter or an eighth where that leaves `least` pixels a side, as Pillow's `draft` does. */
async function decoded(file, least) {
  const image = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const times = [8, 4, 2].find((n) => n <= Math.min(Math.floor(image.width / least), Math.floor(image.height / least)));
  if (!times || file.type !== "image/jpeg" || !globalThis.ImageDecoder) {
    return image;
  }
  try {
    return await smaller(file, Math.ceil(image.width / times), Math.ceil(image.height / times), image);
  } catch {
    return image; // this browser decodes it at its full size only
  }
}

async function smaller(file, desiredWidth, desiredHeight, image) {
  const decoder = new ImageDecoder({ type: file.type, data: file.stream(), colorSpaceConversion: "none", desiredWidth, desiredHeight });
  const { image: frame } = await decoder.decode();
  const result = await createImageBitmap(frame, { colorSpaceConversion: "none" });
  frame.close();
  decoder.close();
  if (result.width !== desiredWidth || result.height !== desiredHeight) {
    result.close();
    return image;
  }
  image.close();
  return result;
}

function withoutAlpha(colours) {
  const pixels = new Uint8ClampedArray((colours.length / 4) * 3);
  for (let from = 0, to = 0; from < colours.length; from += 4) {
    pixels[to++] = colours[from];
    pixels[to++] = colours[from + 1];
    pixels[to++] = colours[from + 2];
  }
  return pixels;
}

function gray(colours) {
  const pixels = new Uint8ClampedArray(colours.length / 4);
  for (let from = 0, to = 0; from < colours.length; from += 4) {
    pixels[to++] = (colours[from] * 19595 + colours[from + 1] * 38470 + colours[from + 2] * 7471 + 0x8000) >> 16;
  }
  return pixels;
}

function middle(pixels, size, crop, channels) {
  const top = Math.floor((size.height - crop.height) / 2);
  const left = Math.floor((size.width - crop.width) / 2);
  const out = new Uint8ClampedArray(crop.height * crop.width * channels);
  for (let y = 0; y < crop.height; y++) {
    const from = ((top + y) * size.width + left) * channels;
    out.set(pixels.subarray(from, from + crop.width * channels), y * crop.width * channels);
  }
  return out;
}
