import { byId, el, number } from './elements.js';
// @ts-expect-error the library as this port sends it
import uPlot from './uplot.js';

/** @typedef {import('../overview.js').Series} Series */

/** @type {{ destroy(): void, setSize(size: { width: number, height: number }): void, box: HTMLElement }[]} */
let drawn = [];
const HEIGHT = 190;
const LEAST_PARTS = 10;

/** @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/**
 * A stacked area for each cohort: tokens below, sessions on top of them.
 * @param {Series} series
 * @param {'share' | 'requests'} measure
 */
export function drawCharts({ at, cohorts, span }, measure) {
  for (const chart of drawn) chart.destroy();
  drawn = [];
  const place = byId('charts');
  place.replaceChildren();
  if (cohorts.length === 0) place.append(el('p', { class: 'nothing' }, 'Nobody has come yet.'));
  const begun = firstOf(cohorts, at.length);
  /** @type {(() => void)[]} */
  const later = [];
  for (const { cohort, session, jwt } of cohorts) {
    const box = el('div', {});
    const all = jwt.map((tokens, index) => tokens + (session[index] ?? 0));
    const requests = all.reduce((sum, one) => sum + one, 0);
    const tokens = jwt.reduce((sum, one) => sum + one, 0);
    const share = requests === 0 ? 0 : Math.round((100 * tokens) / requests);
    const said = `${cohort}: ${number(tokens)} of ${number(requests)} requests by token, ${share} %`;
    const shown = el('p', { class: 'legend' }, said);
    place.append(
      el(
        'figure',
        { class: 'chart' },
        el('h3', {}, cohort),
        el('div', { role: 'img', 'aria-label': said }, box),
        el(
          'p',
          { class: 'legend' },
          el('span', {}, el('i', { class: 'token' }), 'tokens'),
          el('span', {}, el('i', { class: 'session' }), 'sessions'),
        ),
        shown,
      ),
    );
    // Once all of them have their places.
    later.push(() =>
      draw(box, at.slice(begun), all.slice(begun), jwt.slice(begun), { measure, span, say: (text) => shown.replaceChildren(text ?? said) }),
    );
  }
  for (const one of later) one();
}

/**
 * From when on there is anything to see, and some room before it.
 * @param {Series['cohorts']} cohorts
 * @param {number} size
 */
function firstOf(cohorts, size) {
  const first = Array.from({ length: size }, (_, index) => index).find((index) =>
    cohorts.some(({ session, jwt }) => (session[index] ?? 0) + (jwt[index] ?? 0) > 0),
  );
  return Math.max(0, Math.min(first ?? 0, size - LEAST_PARTS) - 1);
}

/**
 * @param {HTMLElement} box
 * @param {readonly number[]} at
 * @param {number[]} all
 * @param {readonly number[]} jwt
 * @param {{ measure: 'share' | 'requests', span: string, say: (text: string | undefined) => void }} options
 */
function draw(box, at, all, jwt, { measure, span, say }) {
  const isShare = measure === 'share';
  /** @param {number | undefined} value @param {number} index */
  const shared = (value, index) => (all[index] ? (100 * (value ?? 0)) / all[index] : null);
  const top = isShare ? all.map(shared) : all;
  const bottom = isShare ? jwt.map(shared) : [...jwt];
  const part = ((at[1] ?? 0) - (at[0] ?? 0)) / 1000;
  const ink = colour('--faint');
  const axis = { stroke: ink, grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  /** @param {string} name */
  const area = (name) => ({
    stroke: colour(name),
    fill: colour(name),
    width: 0,
    points: { show: false },
    paths: uPlot.paths.bars({ size: [1, Infinity], gap: 0, align: 1 }),
  });
  const chart = new uPlot(
    {
      width: Math.max(220, box.clientWidth),
      height: HEIGHT,
      // The last part of the time has room too.
      scales: {
        x: { range: (/** @type {unknown} */ _, /** @type {number} */ min, /** @type {number} */ max) => [min, max + part] },
        y: { range: (/** @type {unknown} */ _, /** @type {number} */ __, /** @type {number} */ max) => [0, isShare ? 100 : Math.max(1, max)] },
      },
      axes: [
        { ...axis, space: 70, values: (/** @type {unknown} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => timeName(tick * 1000, span)) },
        {
          ...axis,
          size: 46,
          values: (/** @type {unknown} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => (isShare ? `${tick} %` : number(tick))),
        },
      ],
      series: [{}, area('--session'), area('--token')],
      cursor: { y: false, points: { show: false } },
      hooks: {
        setCursor: [
          (/** @type {{ cursor: { idx?: number | null } }} */ { cursor: { idx } }) => {
            if (idx === null || idx === undefined) return say(undefined);
            const time = new Date(at[idx] ?? 0).toISOString();
            const when = span === 'day' ? time.slice(0, 10) : `${time.slice(0, 10)} ${time.slice(11, 16)} UTC`;
            say(`${when}: ${number(jwt[idx] ?? 0)} by token, ${number((all[idx] ?? 0) - (jwt[idx] ?? 0))} by session`);
          },
        ],
      },
      tzDate: (/** @type {number} */ seconds) => uPlot.tzDate(new Date(seconds * 1000), 'Etc/UTC'),
    },
    [at.map((ms) => ms / 1000), top, bottom],
    box,
  );
  chart.box = box;
  drawn.push(chart);
}

/** @param {number} ms @param {string} span */
function timeName(ms, span) {
  const time = new Date(ms).toISOString();
  return span === 'minute' ? time.slice(11, 16) : time.slice(5, 10);
}

addEventListener('resize', () => {
  for (const chart of drawn) chart.setSize({ width: Math.max(220, chart.box.clientWidth), height: HEIGHT });
});
