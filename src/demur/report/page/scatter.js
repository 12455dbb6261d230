// The scatter: one for each subject that has representations.
const PAD = { left: 44, right: 14, top: 12, bottom: 40 };
const NEAR = 18;
const LOOKS = {
  group: { harmful: 'filled', harmless: 'hollow' },
  refusal: { harmful: 'with a rim', harmless: 'without' },
};
let scatters = 0;

class Scatter {
  constructor(place, subject) {
    this.subject = DATA[subject];
    this.number = subject;
    this.name = `scatter-${scatters++}`;
    this.view = this.subject.views[0];
    this.step = 0;
    this.hidden = new Set();
    this.labels = new Set(['harmful', 'harmless']);
    this.colour = 'group';
    this.current = null;
    this.bounds = this.allBounds();
    this.controls = element('div', { class: 'controls' });
    this.tip = element('div', { class: 'tip', role: 'status', hidden: true });
    this.plot = element('div', { class: 'plot' });
    this.slider = element('div', { class: 'training', hidden: true });
    this.legend = element('p', { class: 'note arrows' });
    place.append(this.controls, this.slider, this.plot, this.legend);
    this.drawControls();
    this.draw();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  // One frame for all views, so that nothing jumps when the view changes.
  allBounds() {
    const points = this.subject.views.flatMap(view => view.series.flatMap(one => one.points));
    const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
    for (const point of points) for (const axis of [0, 1]) {
      low[axis] = Math.min(low[axis], point[axis]);
      high[axis] = Math.max(high[axis], point[axis]);
    }
    return [0, 1].map(axis => {
      const room = 0.04 * (high[axis] - low[axis]) || 1;
      return [low[axis] - room, high[axis] + room];
    });
  }

  label(index) {
    return this.subject.queries[this.view.queries[index]][1];
  }

  shown() {
    if (this.view.steps) return [this.step];
    return this.view.series.map((_, place) => place).filter(place => !this.hidden.has(place));
  }

  // Where the keyboard was survives that the controls are built again.
  drawControls() {
    const focused = document.activeElement && document.activeElement.dataset.control;
    const parts = [];
    if (this.subject.views.length > 1) {
      parts.push(this.choice('Show', 'view', this.subject.views.map(view => view.title),
        this.subject.views.indexOf(this.view), place => this.changeView(place)));
    }
    if (!this.view.steps) parts.push(this.conditionToggles());
    parts.push(this.labelToggles());
    parts.push(this.choice('Colour', 'colour', ['group', 'refusal probability'],
      this.colour === 'group' ? 0 : 1, place => {
        this.colour = ['group', 'refusal'][place];
        this.drawControls();
        this.draw();
      }));
    if (this.colour === 'refusal') {
      parts.push(element('label', {}, '0 %', element('span', { class: 'scale' }), '100 %'));
    }
    this.controls.replaceChildren(...parts);
    this.drawSlider();
    this.drawLegend();
    if (focused) {
      const again = this.controls.querySelector(`[data-control="${CSS.escape(focused)}"]`);
      if (again) again.focus();
    }
  }

  choice(legend, name, titles, chosen, act) {
    const options = titles.map((title, place) => element('label', {},
      element('input', {
        type: 'radio', name: `${this.name}-${name}`, checked: place === chosen,
        'data-control': `${this.name}-${name}-${place}`, on: { change: () => act(place) },
      }), title));
    return element('fieldset', {}, element('legend', {}, legend), ...options);
  }

  changeView(place) {
    this.view = this.subject.views[place];
    this.step = 0;
    this.hidden.clear();
    this.current = null;
    this.drawControls();
    this.draw();
  }

  conditionToggles() {
    const boxes = this.view.series.map((one, place) => element('label', {},
      element('input', {
        type: 'checkbox', checked: !this.hidden.has(place),
        'data-control': `${this.name}-condition-${place}`,
        on: { change: event => this.toggle(this.hidden, place, !event.target.checked) },
      }),
      shape('svg', { class: 'key', viewBox: '0 0 34 16', 'aria-hidden': 'true' },
        mark(place, 'harmful', 8, 8), mark(place, 'harmless', 25, 8)),
      shortened(one.name, 30)));
    return element('fieldset', {}, element('legend', {}, 'Prompt'), ...boxes);
  }

  labelToggles() {
    const boxes = ['harmful', 'harmless'].map(label => element('label', {},
      element('input', {
        type: 'checkbox', checked: this.labels.has(label),
        'data-control': `${this.name}-label-${label}`,
        on: { change: event => this.toggle(this.labels, label, event.target.checked) },
      }), `${label} (${LOOKS[this.colour][label]})`));
    return element('fieldset', {}, element('legend', {}, 'Queries'), ...boxes);
  }

  toggle(set, what, present) {
    if (present) set.add(what); else set.delete(what);
    this.hide();
    this.draw();
  }

  drawSlider() {
    this.slider.hidden = !this.view.steps;
    if (!this.view.steps) return;
    const last = this.view.series.length - 1;
    const output = element('output', {}, this.stepName());
    const input = element('input', {
      type: 'range', min: 0, max: last, step: 1, value: this.step, 'aria-label': 'Training step',
      'aria-valuetext': this.stepName(),
      on: {
        input: event => {
          this.step = Number(event.target.value);
          output.textContent = this.stepName();
          event.target.setAttribute('aria-valuetext', this.stepName());
          this.hide();
          this.draw();
        },
      },
    });
    input.value = this.step;
    this.slider.replaceChildren(element('span', {}, 'Training'), input, output);
  }

  // What each arrow and line is; of the training, what to look for.
  drawLegend() {
    const name = place => shortened(this.view.series[place].name, 30);
    const arrows = this.view.steps
      ? [[`arrow: from before the training to the chosen step`, '']]
      : this.view.arrows.map(([from, to, dashed]) => [`${name(from)} to ${name(to)}`, dashed ? 'dashed' : '']);
    const lines = ['harmfulness', 'refusal'].filter(one => this.subject.frame && this.subject.frame[one])
      .map(one => [`${one} boundary, ${this.beyond(one)}`, one]);
    this.legend.replaceChildren(
      ...arrows.map(([text, kind]) => key(text, `arrow ${kind}`, true)),
      ...lines.map(([text, kind]) => key(text, `boundary ${kind}`, false)));
    if (this.view.steps) {
      this.legend.append('Move the slider. Look for the filled marks (harmful) going to the side of ' +
        'the refusal boundary where queries are refused, while the hollow ones (harmless) stay; where ' +
        'both go the same way, the prompt refuses more of everything.');
    }
  }

  // What lies on which side of a boundary.
  beyond(name) {
    const [x, y] = this.subject.frame[name].weight;
    const side = Math.abs(x) >= Math.abs(y) ? (x > 0 ? 'right of' : 'left of') : (y > 0 ? 'above' : 'below');
    return `${name === 'refusal' ? 'refused' : 'harmful'} ${side} it`;
  }

  stepName() {
    const name = this.view.series[this.step].name;
    return this.step === 0 ? `before: ${name}` : name;
  }

  draw() {
    const width = Math.max(this.plot.clientWidth, 240);
    const height = Math.max(300, Math.min(620, 0.8 * width));
    const [[left, right], [bottom, top]] = this.bounds;
    // One scale for both axes, so that angles are true.
    const scale = Math.min((width - PAD.left - PAD.right) / (right - left),
      (height - PAD.top - PAD.bottom) / (top - bottom));
    const middle = [(left + right) / 2, (bottom + top) / 2];
    const centre = [(PAD.left + width - PAD.right) / 2, (PAD.top + height - PAD.bottom) / 2];
    this.x = value => centre[0] + scale * (value - middle[0]);
    this.y = value => centre[1] - scale * (value - middle[1]);
    this.size = [width, height];
    const picture = shape('svg', {
      viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: 'application',
      'aria-label': `Scatter plot, ${this.view.title}. Arrow keys go from query to query, Enter pins.`,
    });
    this.drawAxes(picture, scale, middle);
    this.points = [];
    const marks = shape('g');
    for (const place of this.shown()) this.drawSeries(marks, place);
    picture.append(marks);
    if (this.subject.frame) this.drawBoundaries(picture);
    this.drawArrows(picture);
    this.ring = shape('circle', { class: 'ring', r: 8, visibility: 'hidden' });
    picture.append(this.ring);
    this.listen(picture);
    const had = this.plot.contains(document.activeElement);
    this.plot.replaceChildren(picture, this.tip);
    if (had) picture.focus();
    if (this.current) this.restore();
  }

  drawAxes(picture, scale, middle) {
    const [width, height] = this.size;
    const step = niceStep(80 / scale);
    const span = [(width - PAD.left - PAD.right) / scale, (height - PAD.top - PAD.bottom) / scale];
    const ticks = axis => {
      const low = middle[axis] - span[axis] / 2, high = middle[axis] + span[axis] / 2;
      const found = [];
      for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
      return found;
    };
    const base = height - PAD.bottom;
    for (const value of ticks(0)) {
      picture.append(
        shape('line', { class: 'axis', x1: this.x(value), x2: this.x(value), y1: PAD.top, y2: base }),
        shape('text', { x: this.x(value), y: base + 14, 'text-anchor': 'middle' }, tickText(value, step)));
    }
    for (const value of ticks(1)) {
      picture.append(
        shape('line', { class: 'axis', x1: PAD.left, x2: width - PAD.right, y1: this.y(value), y2: this.y(value) }),
        shape('text', { x: PAD.left - 5, y: this.y(value) + 4, 'text-anchor': 'end' }, tickText(value, step)));
    }
    const [across, up] = this.subject.frame.axes;
    picture.append(
      shape('text', { x: width / 2, y: height - 8, 'text-anchor': 'middle' }, across),
      shape('text', { transform: `translate(11,${(PAD.top + base) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, up));
  }

  drawSeries(marks, place) {
    const series = this.view.series[place];
    series.points.forEach(([x, y], index) => {
      const label = this.label(index);
      if (!this.labels.has(label)) return;
      const at = [this.x(x), this.y(y)];
      const drawn = mark(this.view.steps ? 0 : place, label, ...at, this.size[0] < 480 ? 0.7 : 1);
      if (this.colour === 'refusal') {
        if (series.refused) {
          drawn.classList.add('rated');
          const share = Math.round(100 * series.refused[index]);
          drawn.style.fill = `color-mix(in oklab, var(--r1) ${share}%, var(--r0))`;
        } else {
          drawn.classList.add('unrated');
        }
      }
      this.points.push({ x: at[0], y: at[1], place, index });
      marks.append(drawn);
    });
    this.points.sort((one, other) => one.x - other.x || one.y - other.y);
  }

  drawBoundaries(picture) {
    const named = [];
    for (const name of ['harmfulness', 'refusal']) {
      const boundary = this.subject.frame[name];
      const ends = boundary && this.boundaryEnds(boundary);
      if (!ends) continue;
      const [[x1, y1], [x2, y2]] = ends;
      picture.append(shape('line', { class: `boundary ${name}`, x1, y1, x2, y2 }));
      if (this.size[0] < 480) continue; // the legend says it; names would lie on one another
      this.nameBoundary(picture, `${name} boundary`, ends, named);
    }
    if (this.colour === 'refusal' && this.subject.frame.refusal) this.drawDirection(picture);
  }

  // A name at the end of its line where no other name is; the legend says it as well.
  nameBoundary(picture, text, ends, named) {
    const free = ends.find(([x, y]) =>
      named.every(other => Math.abs(x - other[0]) > 130 || Math.abs(y - other[1]) > 16));
    if (!free) return;
    named.push(free);
    const [x, y] = free, last = free === ends[1];
    const at = { x: last ? x - 4 : x + 4, y: y > 26 ? y - 5 : y + 13 };
    picture.append(shape('text', last ? { ...at, 'text-anchor': 'end' } : at, text));
  }

  // Where the line weight . g + bias = 0 crosses the frame, in pixels.
  boundaryEnds({ weight, bias }) {
    const [width, height] = this.size;
    const low = [PAD.left, PAD.top], high = [width - PAD.right, height - PAD.bottom];
    const unit = this.x(1) - this.x(0);
    // In pixels y runs down.
    const a = weight[0] / unit, b = -weight[1] / unit;
    const c = bias - a * this.x(0) - b * this.y(0);
    const found = [];
    for (const x of [low[0], high[0]]) {
      const y = -(a * x + c) / b;
      if (y >= low[1] && y <= high[1]) found.push([x, y]);
    }
    for (const y of [low[1], high[1]]) {
      const x = -(b * y + c) / a;
      if (x >= low[0] && x <= high[0]) found.push([x, y]);
    }
    found.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    return found.length < 2 ? null : [found[0], found[found.length - 1]];
  }

  drawDirection(picture) {
    const [width, height] = this.size;
    const { weight } = this.subject.frame.refusal;
    const length = Math.hypot(...weight);
    if (!length) return;
    const start = [width - PAD.right - 60, height - PAD.bottom - 60];
    const end = [start[0] + 45 * weight[0] / length, start[1] - 45 * weight[1] / length];
    drawArrow(picture, start, end, 'direction');
    picture.append(shape('text', { x: width - PAD.right - 4, y: height - PAD.bottom - 6, 'text-anchor': 'end' }, 'refusal direction'));
  }

  drawArrows(picture) {
    const arrows = this.view.steps ? (this.step ? [[0, this.step, false]] : []) : this.view.arrows;
    for (const [from, to, dashed] of arrows) {
      if (!this.view.steps && (this.hidden.has(from) || this.hidden.has(to))) continue;
      for (const label of this.labels) {
        const start = this.middleOf(from, label), end = this.middleOf(to, label);
        if (start && end) drawArrow(picture, start, end, dashed ? 'arrow dashed' : 'arrow');
      }
    }
  }

  middleOf(place, label) {
    const chosen = this.view.series[place].points.filter((_, index) => this.label(index) === label);
    if (!chosen.length) return null;
    const mean = axis => chosen.reduce((sum, point) => sum + point[axis], 0) / chosen.length;
    return [this.x(mean(0)), this.y(mean(1))];
  }

  listen(picture) {
    picture.addEventListener('pointermove', event => this.point(this.nearest(event)));
    picture.addEventListener('pointerleave', () => this.hide());
    picture.addEventListener('click', event => {
      const found = this.nearest(event);
      if (found) { this.point(found); this.pin(); }
    });
    picture.addEventListener('keydown', event => this.key(event));
    picture.addEventListener('blur', () => this.hide());
  }

  nearest(event) {
    const box = this.plot.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, least = NEAR;
    for (const point of this.points) {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < least) { best = point; least = distance; }
    }
    return best;
  }

  key(event) {
    const along = { ArrowRight: [1, 'x'], ArrowLeft: [-1, 'x'], ArrowUp: [-1, 'y'], ArrowDown: [1, 'y'] };
    if (event.key === 'Escape') this.hide();
    else if ((event.key === 'Enter' || event.key === ' ') && this.current) { event.preventDefault(); this.pin(); }
    else if (along[event.key] && this.points.length) {
      event.preventDefault();
      const [step, axis] = along[event.key];
      const sorted = axis === 'x' ? this.points : [...this.points].sort((one, other) => one.y - other.y);
      const place = sorted.indexOf(this.current);
      this.point(sorted[place < 0 ? 0 : Math.max(0, Math.min(sorted.length - 1, place + step))]);
    }
  }

  restore() {
    const { place, index } = this.current;
    this.point(this.points.find(one => one.place === place && one.index === index) || null);
  }

  hide() {
    this.point(null);
  }

  point(found) {
    this.current = found;
    this.tip.hidden = !found;
    this.ring.setAttribute('visibility', found ? 'visible' : 'hidden');
    if (!found) return;
    this.ring.setAttribute('cx', found.x);
    this.ring.setAttribute('cy', found.y);
    const query = this.subject.queries[this.view.queries[found.index]];
    const places = this.view.steps ? [this.step] : this.view.series.map((_, place) => place);
    const rates = places.filter(place => this.view.series[place].refused).map(place => {
      const series = this.view.series[place];
      const line = `${shortened(series.name, 40)}: refusal probability ${percent(series.refused[found.index])}`;
      return element('p', {}, place === found.place ? element('strong', {}, line) : line);
    });
    this.tip.replaceChildren(element('p', {}, shortened(query[0], 260)),
      element('p', {}, kindOf(query).join(', ')), ...rates);
    const [width, height] = this.size;
    const right = found.x > width / 2, below = found.y < height / 2;
    this.tip.style.left = right ? 'auto' : `${found.x + 12}px`;
    this.tip.style.right = right ? `${width - found.x + 12}px` : 'auto';
    this.tip.style.top = below ? `${found.y + 12}px` : 'auto';
    this.tip.style.bottom = below ? 'auto' : `${height - found.y + 12}px`;
  }

  pin() {
    pinQuery(this.number, this.view.queries[this.current.index]);
  }
}

function drawArrow(picture, [x1, y1], [x2, y2], kind) {
  const length = Math.hypot(x2 - x1, y2 - y1);
  if (length < 3) return;
  const [ux, uy] = [(x2 - x1) / length, (y2 - y1) / length];
  const back = Math.min(9, 0.7 * length);
  const [bx, by] = [x2 - back * ux, y2 - back * uy];
  picture.append(
    shape('line', { class: 'rim', x1, y1, x2, y2 }),
    shape('line', { class: kind, x1, y1, x2: bx, y2: by }),
    shape('path', {
      class: 'head',
      d: `M${x2},${y2}L${bx - 4.5 * uy},${by + 4.5 * ux}L${bx + 4.5 * uy},${by - 4.5 * ux}Z`,
    }));
}

// A sample of a line or an arrow with its meaning.
function key(text, kind, headed) {
  const line = shape('line', { class: kind, x1: 1, x2: headed ? 22 : 29, y1: 7, y2: 7 });
  const head = headed ? [shape('path', { class: 'head', d: 'M30,7L21,2.5V11.5Z' })] : [];
  return element('span', { class: 'legend-key' },
    shape('svg', { viewBox: '0 0 31 14', 'aria-hidden': 'true' }, line, ...head), text);
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map(one => one * power).find(one => one >= rough);
}

function tickText(value, step) {
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step)))).replace('-', '\u2212');
}
