// A picture from the camera, in a dialog.

const dialog = document.getElementById("camera"), video = document.getElementById("camera-video");
const problem = document.getElementById("camera-problem"), take = document.getElementById("camera-take");
const SENTENCES = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};
let stream = null, n = 0;

/** Show what the camera sees; `add` gets each picture that is taken, as a file. */
export async function openCamera(add) {
  problem.textContent = "";
  take.disabled = true;
  take.onclick = () => shoot(add);
  dialog.showModal();
  if (!navigator.mediaDevices?.getUserMedia) {
    problem.textContent = "This browser gives the camera only to pages of https:// or of localhost.";
    return;
  }
  try {
    const opened = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
    if (!dialog.open) return stop(opened);
    stream = video.srcObject = opened;
    await video.play();
    take.disabled = false;
    take.focus();
  } catch (error) {
    problem.textContent = SENTENCES[error.name] ?? "The camera cannot be used.";
  }
}

function shoot(add) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => { add(new File([blob], `camera-${++n}.jpg`, {type: "image/jpeg"})); dialog.close(); }, "image/jpeg", 0.95);
}

function stop(ended) {
  for (const track of ended?.getTracks() ?? []) track.stop();
}

document.getElementById("camera-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => { stop(stream); stream = video.srcObject = null; });
