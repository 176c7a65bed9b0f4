// Pillow's `Image.resize(size, BILINEAR)`, to the byte: the filter is widened where a picture shrinks, so that no pixel is skipped.
// After src/libImaging/Resample.c of Pillow 13 (MIT-CMU): 22 bits of precision, across and down, each rounded to a byte.

const BITS = 22;

/** Return the bytes of a picture (rows of pixels of `channels` bytes each) in another size. */
export function resize(pixels, width, height, toWidth, toHeight, channels) {
  const across = (bytes, rows) => (width === toWidth ? bytes : alongRows(bytes, width, rows, toWidth, channels));
  const down = (bytes, columns) => (height === toHeight ? bytes : alongColumns(bytes, columns * channels, height, toHeight));
  const downFirst = height - toHeight > Math.max(0, 2 * (width - toWidth)); // Pillow 12 always goes across first: a byte may differ by 1
  return downFirst ? across(down(pixels, width), toHeight) : down(across(pixels, height), toWidth);
}

function alongRows(pixels, width, height, toWidth, channels) {
  const { starts, weights } = filter(width, toWidth);
  const out = new Uint8ClampedArray(toWidth * height * channels);
  for (let y = 0, place = 0; y < height; y++) {
    for (let x = 0; x < toWidth; x++) {
      for (let c = 0; c < channels; c++) {
        let from = (y * width + starts[x]) * channels + c;
        let sum = 1 << (BITS - 1);
        for (const weight of weights[x]) {
          sum += pixels[from] * weight;
          from += channels;
        }
        out[place++] = sum >> BITS;
      }
    }
  }
  return out;
}

function alongColumns(pixels, stride, height, toHeight) {
  const { starts, weights } = filter(height, toHeight);
  const out = new Uint8ClampedArray(stride * toHeight);
  for (let y = 0, place = 0; y < toHeight; y++) {
    for (let x = 0; x < stride; x++) {
      let from = starts[y] * stride + x;
      let sum = 1 << (BITS - 1);
      for (const weight of weights[y]) {
        sum += pixels[from] * weight;
        from += stride;
      }
      out[place++] = sum >> BITS;
    }
  }
  return out;
}

/** Return for each new pixel the first old one it is made of, and the weights of that and the next ones. */
function filter(size, toSize) {
  const scale = size / toSize;
  const reach = Math.max(scale, 1);
  const starts = [];
  const weights = [];
  for (let i = 0; i < toSize; i++) {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(size, Math.trunc(centre + reach + 0.5));
    const triangle = [];
    for (let j = start; j < end; j++) {
      triangle.push(Math.max(0, 1 - Math.abs((j - centre + 0.5) * (1 / reach))));
    }
    const total = triangle.reduce((sum, value) => sum + value, 0);
    starts.push(start);
    weights.push(Int32Array.from(triangle, (value) => Math.trunc(0.5 + (value / total) * (1 << BITS))));
  }
  return { starts, weights };
}
