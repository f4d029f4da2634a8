// Turns the panels in three dimensions. Every <canvas data-panel> is drawn when it first comes into
// view, and again when it is dragged, gets a key, or its size or the page's colours change.
// Nothing moves by itself. The data come from viewers.py, the first view equals the still picture.
(() => {
  const KEY = 5, DRAG = 0.6;  // degrees: per key, per pixel
  const SIGNS = [-1, 1];

  function unpack(text) {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), count = bytes.length / 7;
    return {count, places: new Int16Array(bytes.buffer, 0, 3 * count), shades: bytes.subarray(6 * count)};
  }

  // What a point is to the eye: [to the right, up, towards the viewer].
  function camera(azimuth, elevation) {
    const a = azimuth * Math.PI / 180, e = elevation * Math.PI / 180;
    const [sa, ca, se, ce] = [Math.sin(a), Math.cos(a), Math.sin(e), Math.cos(e)];
    return {
      see: (x, y, z) => [ca * y - sa * x, ce * z - se * (ca * x + sa * y), ce * (ca * x + sa * y) + se * z],
      nearest: [ca * ce, sa * ce, se].map(value => value < 0 ? -1 : 1),
    };
  }

  // The edges of the cube that do not meet in its nearest corner.
  function cube(nearest) {
    const lines = [];
    for (let axis = 0; axis < 3; axis++) for (const one of SIGNS) for (const other of SIGNS) {
      const ends = SIGNS.map(sign => { const end = [one, other]; end.splice(axis, 0, sign); return end; });
      if (!ends.some(end => end.every((value, i) => value === nearest[i]))) lines.push(ends);
    }
    return lines;
  }

  // Circles of latitude and through the poles.
  function globe() {
    const turn = [...Array(61).keys()].map(i => [Math.cos(i * Math.PI / 30), Math.sin(i * Math.PI / 30)]);
    const flat = [-0.7, 0, 0.7].map(z => turn.map(([c, s]) => [c * Math.sqrt(1 - z * z), s * Math.sqrt(1 - z * z), z]));
    const upright = [0, 1, 2, 3].map(i => i * Math.PI / 4).map(a => turn.map(([c, s]) => [c * Math.cos(a), c * Math.sin(a), s]));
    return [...flat, ...upright];
  }

  function turnable(canvas) {
    const panel = JSON.parse(canvas.dataset.panel), {count, places, shades} = unpack(panel.points);
    const {colours: classes, sequence} = canvas.closest("[data-colours]").dataset;
    const colours = (panel.by_value ? sequence : classes).split(" ");
    const reach = panel.sphere ? 1.3 : 1.6, pen = canvas.getContext("2d"), globeLines = globe();
    let azimuth, elevation, waiting = false, held = null;

    function draw() {
      waiting = false;
      const size = canvas.clientWidth, ratio = window.devicePixelRatio || 1, pixels = Math.round(size * ratio);
      if (!size) return;  // folded away
      if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
      const {see, nearest} = camera(azimuth, elevation), scale = size / 2 / reach;
      const at = ([right, up]) => [size / 2 + right * scale, size / 2 - up * scale];
      const ink = getComputedStyle(canvas).color, paper = getComputedStyle(document.body).backgroundColor;
      pen.setTransform(ratio, 0, 0, ratio, 0, 0);
      pen.clearRect(0, 0, size, size);

      pen.strokeStyle = ink; pen.lineWidth = 1; pen.globalAlpha = 0.25;
      pen.beginPath();
      for (const line of panel.sphere ? globeLines : cube(nearest))
        line.forEach((place, i) => pen[i ? "lineTo" : "moveTo"](...at(see(...place))));
      pen.stroke();
      if (panel.sphere) { pen.beginPath(); pen.arc(size / 2, size / 2, scale, 0, 7); pen.stroke(); }

      const seen = Array.from({length: count}, (_, i) =>
        [...see(...places.subarray(3 * i, 3 * i + 3)).map(value => value / 32767), shades[i]]);
      seen.sort((one, other) => one[2] - other[2]);
      for (const [right, up, depth, shade] of seen) {
        const near = Math.min(1, Math.max(0, (depth + 1.5) / 3));
        pen.globalAlpha = 0.4 + 0.55 * near;
        pen.fillStyle = colours[shade];
        pen.beginPath(); pen.arc(...at([right, up]), size / 300 * (0.8 + near), 0, 7); pen.fill();
      }

      pen.globalAlpha = 1; pen.textAlign = "center"; pen.textBaseline = "middle"; pen.lineJoin = "round";
      for (const target of panel.targets) {
        const [x, y] = at(see(...target));
        for (const [colour, width] of [[paper, 4], [ink, 2]]) {
          pen.strokeStyle = colour; pen.lineWidth = width; pen.beginPath();
          for (const sign of SIGNS) { pen.moveTo(x - 4, y - 4 * sign); pen.lineTo(x + 4, y + 4 * sign); }
          pen.stroke();
        }
      }
      pen.font = "bold 13px system-ui, sans-serif"; pen.strokeStyle = paper; pen.lineWidth = 3; pen.fillStyle = ink;
      panel.middles.forEach((middle, i) => {
        const out = panel.sphere && !panel.targets.length ? 1.14 : 1, [x, y] = at(see(...middle.map(value => value * out)));
        const above = panel.targets.length ? 12 : 0;  // a target is to be seen there
        pen.strokeText(panel.names[i], x, y - above); pen.fillText(panel.names[i], x, y - above);
      });
    }
    function redraw() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
    function turn(right, up) {
      azimuth = (azimuth - right + 360) % 360; elevation = Math.max(-90, Math.min(90, elevation + up));
      redraw();
    }
    function back() { ({azimuth, elevation} = panel); redraw(); }

    canvas.addEventListener("pointerdown", event => {
      if (event.button) return;  // the main one alone
      held = event;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (held?.pointerId !== event.pointerId) return;
      turn((event.clientX - held.clientX) * DRAG, (event.clientY - held.clientY) * DRAG);
      held = event;
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
    canvas.addEventListener("dblclick", back);
    canvas.addEventListener("keydown", event => {
      const keys = {
        ArrowLeft: () => turn(-KEY, 0), ArrowRight: () => turn(KEY, 0),
        ArrowUp: () => turn(0, -KEY), ArrowDown: () => turn(0, KEY), Home: back,
      };
      if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();  // the page stays where it is
      keys[event.key]();
    });
    new ResizeObserver(redraw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    back();
  }

  const watcher = new IntersectionObserver(entries => {
    for (const {isIntersecting, target} of entries)
      if (isIntersecting) { watcher.unobserve(target); turnable(target); }
  }, {rootMargin: "200px"});
  document.querySelectorAll("canvas[data-panel]").forEach(canvas => watcher.observe(canvas));
})();
