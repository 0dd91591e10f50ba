import { ApiError, openSession, readSeries, readStatus, signIn, signOut } from './api.js';
import { drawCharts } from './chart.js';
import { openClamp, openRelease, prepareClamps, stopMoving } from './clamps.js';
import { byId, clockTime, el, span } from './elements.js';
import { showClamps, showFleet, showKeys, showNow, showReadiness } from './sections.js';
import { knowStages } from './stages.js';

/** @typedef {import('../../telemetry/audit-feed.js').AuditEntry} AuditEntry */

const STATUS_MS = 3000;
const SERIES_MS = 15_000;
const MAX_EVENTS = 200;

const spanChoice = /** @type {HTMLSelectElement} */ (byId('span'));
const measureChoice = /** @type {HTMLSelectElement} */ (byId('measure'));

/** When the figures that are shown were told; 0: never. */
let toldAt = 0;
/** @type {number[]} */
let timers = [];
/** @type {EventSource | undefined} */
let events;
let retry = 0;
/** @type {string | undefined} */
let shownSeries;

async function refresh() {
  try {
    const found = await readStatus();
    toldAt = Date.now();
    showNow(found);
    showClamps(found, openRelease);
    showReadiness(found);
    showKeys(found);
    showFleet(found);
    tellFreshness();
  } catch (error) {
    tellFreshness(error);
  }
}

async function refreshSeries() {
  try {
    const series = await readSeries(spanChoice.value);
    const next = JSON.stringify([series, measureChoice.value]);
    if (next === shownSeries) return;
    shownSeries = next;
    drawCharts(series, measureChoice.value === 'share' ? 'share' : 'requests');
  } catch (error) {
    tellFreshness(error);
  }
}

/** @param {unknown} [error] */
function tellFreshness(error) {
  if (error instanceof ApiError && error.status === 401) return showSignIn();
  const away = byId('away');
  away.hidden = error === undefined;
  document.body.classList.toggle('stale', error !== undefined);
  if (error !== undefined) {
    const shown = toldAt === 0 ? '' : ` What is shown is ${span(Date.now() - toldAt)} old.`;
    away.textContent = `${error instanceof Error ? error.message : 'the figures cannot be had'}; trying again.${shown}`;
  }
  byId('freshness').textContent = toldAt === 0 ? '' : `as of ${clockTime(toldAt)} UTC`;
}

function followEvents() {
  clearTimeout(retry);
  events?.close();
  const list = byId('events');
  list.replaceChildren();
  events = new EventSource('/api/events');
  // After a gap all of the latest come again.
  events.onopen = () => list.replaceChildren();
  // The browser comes again by itself, but not after an answer that is none.
  events.onerror = () => {
    if (events?.readyState === EventSource.CLOSED) retry = window.setTimeout(followEvents, STATUS_MS);
  };
  events.onmessage = ({ data }) => {
    list.prepend(eventLine(JSON.parse(data)));
    while (list.children.length > MAX_EVENTS) list.lastElementChild?.remove();
  };
}

/** @param {AuditEntry} entry */
function eventLine({ at, event, fields, instance }) {
  const told = Object.entries(fields).map(([name, value]) => `${name} ${value}`);
  return el(
    'li',
    {},
    el('time', { class: 'mono', datetime: new Date(at).toISOString() }, clockTime(at)),
    el('span', { class: 'what' }, event),
    el('span', {}, told.join(' · ')),
    el('span', { class: 'hint' }, instance),
  );
}

function stop() {
  for (const timer of timers) clearInterval(timer);
  timers = [];
  clearTimeout(retry);
  events?.close();
}

function showSignIn() {
  stop();
  byId('console').hidden = true;
  byId('sign-in').hidden = false;
  byId('token').focus();
}

async function start() {
  try {
    const session = await openSession();
    if (!session) return showSignIn();
    knowStages(session.stages);
    prepareClamps(session, () => void refresh());
  } catch (error) {
    byId('sign-in-problem').textContent = error instanceof Error ? error.message : '';
    return showSignIn();
  }
  byId('sign-in').hidden = true;
  byId('console').hidden = false;
  await refresh();
  await refreshSeries();
  followEvents();
  timers = [window.setInterval(() => void refresh(), STATUS_MS), window.setInterval(() => void refreshSeries(), SERIES_MS)];
}

byId('sign-in-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const token = /** @type {HTMLInputElement} */ (byId('token'));
  const problem = byId('sign-in-problem');
  problem.textContent = '';
  try {
    await signIn(token.value.trim());
    token.value = '';
    await start();
  } catch (error) {
    problem.textContent = error instanceof ApiError && error.status === 401 ? 'That is not the token.' : error instanceof Error ? error.message : '';
  }
});
byId('sign-out').addEventListener('click', async () => {
  await signOut().catch(() => undefined);
  showSignIn();
});
byId('stop').addEventListener('click', () => void stopMoving());
byId('clamp').addEventListener('click', openClamp);
spanChoice.addEventListener('change', () => void refreshSeries());
measureChoice.addEventListener('change', () => void refreshSeries());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  shownSeries = undefined;
  void refreshSeries();
});

void start();
