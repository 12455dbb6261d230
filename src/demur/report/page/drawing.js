// What all parts share: data, and elements whose content is always text.
const DATA = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'on') {
      for (const [event, act] of Object.entries(value)) node.addEventListener(event, act);
    } else if (value === true) {
      node.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  // Strings become text nodes: no query, response or name is ever parsed as markup.
  node.append(...children);
  return node;
}

function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// Marks of about the same area around the origin, one for each condition.
const SHAPES = [
  'M4,0A4,4 0 1,1 -4,0A4,4 0 1,1 4,0Z',
  'M0,-5L4.6,3.4H-4.6Z',
  'M-3.6,-3.6H3.6V3.6H-3.6Z',
  'M0,-5L5,0L0,5L-5,0Z',
  'M0,5L4.6,-3.4H-4.6Z',
  'M-1.6,-4.6H1.6V-1.6H4.6V1.6H1.6V4.6H-1.6V1.6H-4.6V-1.6H-1.6Z',
  'M-4.4,-2.4L-2.4,-4.4L0,-2L2.4,-4.4L4.4,-2.4L2,0L4.4,2.4L2.4,4.4L0,2L-2.4,4.4L-4.4,2.4L-2,0Z',
  'M0,-5.5L1.6,-1.8L5.4,-1.7L2.4,.9L3.3,4.6L0,2.6L-3.3,4.6L-2.4,.9L-5.4,-1.7L-1.6,-1.8Z',
];

function mark(place, label, x, y, size = 1) {
  const kind = place % SHAPES.length;
  return shape('path', {
    d: SHAPES[kind],
    class: `mark ${label === 'harmless' ? 'harmless' : 'harmful'} k${kind}`,
    transform: `translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${size})`,
  });
}

// What a printed page says of what only a press of a button shows.
function onPaper(left) {
  return element('div', { class: 'note on-paper' }, `And ${left.toLocaleString('en')} more, in the page on a screen.`);
}

function percent(rate) {
  return `${Math.round(100 * rate)} %`;
}

function shortened(text, most) {
  const characters = [...text];
  return characters.length <= most ? text : `${characters.slice(0, most).join('')}...`;
}

// How the text of a response is shown; 0 is as it is.
const FOLDED = 1, REDACTED = 2;

// What a response did, by the verdict on it; a verdict is null where the judge had none.
const DID = { answers: 'answered', deflects: 'deflected', refuses: 'refused' };

// What tells a query from others: its label, category, set and use.
function kindOf([, label, category, set, , use]) {
  return [label, category, set, use].filter(Boolean);
}

function verdictOf(verdict) {
  return verdict === null ? 'no verdict' : DID[verdict];
}

// Whether a verdict is as it should be; empty where that is not known.
function outcomeOf(verdict, label) {
  if (verdict === null || !label) return '';
  return (verdict === 'answers') === (label === 'harmless') ? 'right' : 'wrong';
}

// What a response did and whether that is right, in words; the colour says the latter as well.
function chip(verdict, label) {
  const outcome = outcomeOf(verdict, label);
  // Without it a reader wonders why a deflection is right.
  const why = verdict === 'deflects' ? ' (not answered)' : '';
  const words = [`${verdictOf(verdict)}${why}`, outcome].filter(Boolean).join(', ');
  return element('span', { class: `chip ${outcome}`.trim() }, words);
}

// How many of some responses have a verdict.
function countOf(given, verdict) {
  return given.filter(one => one.verdict === verdict).length;
}

// The text of a response: as it is, behind a button, or a word where this page does not have it.
function textOf({ text, showing }) {
  if (showing === REDACTED) return [element('span', { class: 'hidden-text' }, 'Redacted')];
  const shown = element('bdi', {}, text);
  if (showing !== FOLDED) return [shown];
  return [element('button', {
    type: 'button', class: 'hidden-text',
    on: { click: event => event.target.replaceWith(shown) },
  }, 'Show the answer')];
}
