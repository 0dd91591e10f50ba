import { el, number, show, span, svg, table } from './elements.js';
import { factsOf } from './stages.js';

/** @typedef {import('../overview.js').Overview} Overview */
/** @typedef {Overview['cohorts'][number]} Cohort */
/** @typedef {Overview['clamps'][number]} Clamp */
/** @typedef {Overview['keys'][number]} Key */

/** @param {{ on: string, name?: string }} selector */
export function whomOf(selector) {
  if (selector.on === 'unknown') return 'everybody (a later release knows whom)';
  return selector.on === 'all' ? 'everybody' : `${selector.on} ${selector.name}`;
}

/** @param {Overview} found */
export function showNow(found) {
  const { sentence, problems, refused } = found;
  const title = document.getElementById('sentence');
  if (title && title.textContent !== sentence) title.textContent = sentence;
  if (title) title.className = refused.lastMinutes > 0 ? 'bad' : problems.length > 0 ? 'warn' : '';
  show('problems', ...problems.map((problem) => el('li', {}, problem)));
  showCards(found);
  show(
    'clients',
    table(
      ['Cohort', 'Stage → next', 'What blocks the next step', 'On tokens, last hour', 'People today', 'Last came with a session'],
      found.cohorts.map((cohort) => [nameOf(cohort), stageOf(cohort), blocked(cohort), share(cohort), people(cohort), lastSessions(found, cohort)]),
      'No cohort is configured.',
    ),
  );
}

/** @param {Overview} found */
function showCards({ refused, instances, configurations, keys, clamps, cohorts }) {
  const hour = refused.lastHour.reduce((sum, { requests }) => sum + requests, 0);
  const first = cohorts.reduce((sum, { figures }) => sum + figures.exchangeFirst, 0);
  const healthy = instances.filter(({ signing }) => signing === 'healthy').length;
  const active = keys.find(({ phase }) => phase === 'active');
  const next = keys.find(({ phase }) => phase === 'next');
  show(
    'cards',
    card(
      'Good credentials refused, last hour',
      number(hour),
      hour === 0 ? 'good' : 'bad',
      hour === 0 ? 'no 401, no 503' : refused.lastHour.map(({ what, requests }) => `${what.replace(':', ' ')}: ${number(requests)}`).join(', '),
      first > 0 && `${number(first)} more were told to exchange their session first, as jwt-only means it`,
    ),
    card(
      'Signing',
      instances.length === 0 ? 'nobody' : healthy === instances.length ? 'healthy' : `${healthy} of ${instances.length} healthy`,
      instances.length > 0 && healthy === instances.length ? 'good' : 'bad',
      active ? `${active.kid.slice(0, 8)} signs on ${active.signedBy} of ${instances.length}` : 'no key signs',
      next && `${next.kid.slice(0, 8)} is next`,
    ),
    card(
      'Fleet',
      `${instances.length} live`,
      configurations === 1 ? 'good' : 'warn',
      `${configurations} ${configurations === 1 ? 'configuration' : 'configurations'}, flags ${[...new Set(instances.map(({ flags }) => flags))].join(', ') || 'unknown'}`,
    ),
    card(
      'Clamps',
      String(clamps.length),
      clamps.length === 0 ? 'good' : 'warn',
      clamps.length === 0 ? 'nobody is held back' : clamps.map(({ selector }) => whomOf(selector)).join(', '),
    ),
  );
}

/** @param {string} title @param {string} figure @param {string} tone @param {...(string | false | undefined)} lines */
function card(title, figure, tone, ...lines) {
  const said = lines.filter((line) => typeof line === 'string' && line !== '');
  return el(
    'div',
    { class: 'card' },
    el('div', { class: 'hint' }, title),
    el('div', { class: `figure ${tone}` }, figure),
    ...said.map((line) => el('div', { class: 'hint' }, line)),
  );
}

/** @param {Cohort} cohort */
function nameOf({ cohort, client }) {
  return el('span', {}, cohort, cohort !== client && el('span', { class: 'hint' }, ` of ${client}`));
}

/** @param {string} stage */
function pill(stage) {
  return el('span', { class: factsOf(stage)?.tone === 'tokens' ? 'stage on-tokens' : 'stage' }, stage);
}

/** @param {Cohort} cohort */
function stageOf({ stage, next, stages, requests }) {
  if (!stage) return el('span', { class: 'hint' }, 'no requests in the last minute');
  const parts = stages.map((one) => `${one.stage} (${one.reason}) ${Math.round((100 * one.requests) / requests)} %`);
  return el(
    'div',
    {},
    el(
      'div',
      {},
      pill(stage),
      ...(next ? [el('span', { class: 'arrow' }, '→'), el('span', { class: 'visually-hidden' }, 'next: '), pill(next)] : []),
    ),
    el('div', { class: 'hint' }, parts.join(', ')),
  );
}

/** @param {Cohort} cohort */
function blocked({ stage, next, checks, blockedBy }) {
  if (!next) return stage ? el('span', { class: 'hint' }, 'the last stage') : '';
  if (blockedBy.length === 0) return el('span', { class: 'good' }, 'nothing');
  return el('ul', { class: 'lines' }, ...checks.filter(({ ok }) => ok !== true).map(({ name, figure }) => el('li', {}, `${name}: ${figure}`)));
}

/** @param {Cohort} cohort */
function share({ cohort, figures: { lastHour } }) {
  const all = lastHour.session + lastHour.jwt;
  if (all === 0) return el('span', { class: 'hint' }, 'no requests');
  const percent = Math.round((100 * lastHour.jwt) / all);
  return el(
    'div',
    { class: 'share' },
    el('span', {}, `${percent} % of ${number(all)}`),
    svg(
      'svg',
      { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true', 'data-cohort': cohort },
      svg('rect', { class: 'fill-session', width: 100, height: 6 }),
      svg('rect', { class: 'fill-token', width: percent, height: 6 }),
    ),
  );
}

/** @param {Cohort} cohort */
function people({ figures: { today } }) {
  return today.all === 0 ? '' : `${number(today.jwt)} of ${number(today.all)} with a token`;
}

/** @param {Overview} found @param {Cohort} cohort */
function lastSessions({ at, sessionsOff }, { cohort, client }) {
  if (cohort !== client) return '';
  const own = sessionsOff.lastSessions.filter((one) => one.client === client).slice(0, 4);
  if (own.length === 0) return el('span', { class: 'hint' }, 'not in 30 days');
  return el('ul', { class: 'lines' }, ...own.map((one) => el('li', {}, `${one.version === '-' ? 'no version' : one.version}: ${ago(at - one.at)}`)));
}

/** @param {number} ms */
function ago(ms) {
  return ms < 10_000 ? 'now' : `${span(ms)} ago`;
}

/** @param {Overview} found @param {(clamp: Clamp) => void} release */
export function showClamps({ clamps, at }, release) {
  show(
    'clamps',
    table(
      ['Whom', 'At most', 'By', 'Why', 'Since', 'Until', ''],
      clamps.map((clamp) => [
        whomOf(clamp.selector),
        pill(clamp.stage),
        `the ${clamp.by}`,
        clamp.why,
        ago(at - clamp.at),
        clamp.until === undefined ? 'released by hand' : new Date(clamp.until).toISOString().slice(0, 16).replace('T', ' '),
        el('button', { type: 'button', 'data-release': `${clamp.selector.on} ${whomOf(clamp.selector)}` }, 'Release'),
      ]),
      'Nobody is held back.',
    ),
  );
  const buttons = document.querySelectorAll('#clamps button[data-release]');
  buttons.forEach((button, index) => {
    const clamp = clamps[index];
    if (button instanceof HTMLElement && clamp) button.onclick = () => release(clamp);
  });
}

const ANSWERS = {
  token: '200 by token',
  session: '200 by session',
  nudge: '200 and a nudge',
  'exchange-first': '401 exchange first',
  unavailable: '503',
};

/** @param {NonNullable<Cohort['forecast']>} forecast */
function ahead({ stage, rows, moving }) {
  const { people, requests, peakPerSecond, minutes } = moving;
  const told = rows.filter((row) => row.answer !== 'unavailable' && row.requests > 0);
  if (told.length === 0) return [];
  const moves = `${number(people)} people would ${factsOf(stage)?.back ? 'return' : 'exchange'}, ${number(peakPerSecond)} a second at most${minutes === undefined ? '' : `, 95 % within about ${Math.max(1, Math.round(minutes))} min`}.`;
  return [
    el('p', { class: 'hint' }, `What if: at ${stage}, by the last hour.`),
    el(
      'ul',
      { class: 'lines' },
      ...told.map((row) =>
        el(
          'li',
          {},
          `${ANSWERS[row.answer]}: ${number(row.people)} people, ${number(row.requestsPerSecond)} requests/s (${row.versions.map((version) => (version === '-' ? 'no version' : version)).join(', ')})`,
        ),
      ),
      el('li', {}, people > 0 ? moves : requests > 0 ? 'Hardly anybody would be told to move.' : 'Nobody would be told to move.'),
    ),
  ];
}

/** @param {Overview} found */
export function showReadiness({ cohorts, sessionsOff, at }) {
  show(
    'checklists',
    ...cohorts
      .filter(({ stage }) => stage)
      .map(({ cohort, stage, next, checks, blockedBy, forecast }) =>
        el(
          'div',
          { class: 'card' },
          el('h3', {}, cohort, next ? ` → ${next}` : ''),
          el(
            'p',
            { class: 'hint' },
            stage
              ? next
                ? blockedBy.length === 0
                  ? 'Ready.'
                  : `At ${stage}; not yet.`
                : `At ${stage}, the last stage.`
              : 'No requests in the last minute.',
          ),
          el('ul', { class: 'checks' }, ...checks.map(check)),
          ...(forecast ? ahead(forecast) : []),
        ),
      ),
  );
  const silent = cohorts.filter(({ stage }) => !stage).map(({ cohort }) => cohort);
  show('silent', silent.length > 0 && `No requests in the last minute: ${silent.join(', ')}.`);
  show(
    'sessions-off',
    el(
      'div',
      { class: 'card' },
      el('h3', {}, 'Safe to switch sessions off?'),
      el(
        'p',
        { class: sessionsOff.ok ? 'good' : '' },
        sessionsOff.ok ? 'Yes: nobody has come with a session for 14 days.' : 'Not yet: these still come with a session, or did in the last 14 days.',
      ),
      el(
        'div',
        { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Last sessions' },
        table(
          ['Client', 'Version', 'Last session', 'Nobody since'],
          sessionsOff.lastSessions.map(({ client, version, at: last }) => [
            client,
            version === '-' ? 'not said' : version,
            ago(at - last),
            new Date(last).toISOString().slice(0, 16).replace('T', ' '),
          ]),
          'Nobody has come with a session in 30 days.',
        ),
      ),
    ),
  );
}

/** @param {Cohort['checks'][number]} check */
function check({ name, ok, figure }) {
  const [mark, tone, said] = ok === true ? ['✓', 'good', 'passes'] : ok === false ? ['✗', 'bad', 'does not pass'] : ['?', 'warn', 'not known yet'];
  return el(
    'li',
    {},
    el('span', { class: `mark ${tone}`, role: 'img', 'aria-label': said }, mark),
    el('span', {}, name),
    el('span', { class: 'hint' }, figure),
  );
}

const LANE = 26;
const LEFT = 92;
const WIDTH = 900;

/** @param {Overview} found */
export function showKeys({ keys, at, instances }) {
  show(
    'key-table',
    table(
      ['Key', 'Phase', 'Signs on', 'Verified by', 'File', 'What it waits for'],
      keys.map((key) => [
        el('code', {}, key.kid.slice(0, 12)),
        key.phase,
        `${key.signedBy} of ${instances.length}`,
        `${key.verifiedBy} of ${instances.length}`,
        key.files.join(', '),
        waits(key, at),
      ]),
      'There is no key: crossfade keys rotate makes one.',
    ),
  );
  const lanes = keys.filter(({ firstSeenAt }) => firstSeenAt !== undefined);
  if (lanes.length === 0) return show('timeline');
  const from = Math.min(...lanes.map(({ firstSeenAt = at }) => firstSeenAt), at - 3_600_000);
  const to = Math.max(...lanes.map(({ retiringUntil = at, startsAt = at }) => Math.max(retiringUntil, startsAt)), at) + 600_000;
  /** @param {number} ms */
  const x = (ms) => LEFT + ((WIDTH - LEFT - 10) * (Math.min(Math.max(ms, from), to) - from)) / (to - from);
  const height = lanes.length * LANE + 30;
  /** @param {number} start @param {number} end @param {number} lane @param {string} phase */
  const bar = (start, end, lane, phase) =>
    end > start && svg('rect', { class: phase, x: x(start), y: lane * LANE + 8, width: Math.max(1.5, x(end) - x(start)), height: LANE - 12, rx: 3 });
  show(
    'timeline',
    svg(
      'svg',
      {
        viewBox: `0 0 ${WIDTH} ${height}`,
        role: 'img',
        'aria-label': `Key timeline: ${keys.map(({ kid, phase }) => `${kid.slice(0, 8)} ${phase}`).join(', ')}`,
      },
      ...lanes.flatMap((key, lane) => {
        const { firstSeenAt = at, startsAt = at, lastSignedAt, retiringUntil, phase, kid } = key;
        const signsFrom = phase === 'next' ? at : Math.max(firstSeenAt, startsAt);
        const signsTo = phase === 'active' ? at : (lastSignedAt ?? signsFrom);
        return [
          svg('text', { x: 8, y: lane * LANE + 20 }, kid.slice(0, 8)),
          bar(firstSeenAt, phase === 'next' ? Math.max(at, startsAt) : signsFrom, lane, 'next'),
          phase !== 'next' && bar(signsFrom, signsTo, lane, 'active'),
          retiringUntil !== undefined && bar(signsTo, retiringUntil, lane, 'retiring'),
        ];
      }),
      svg('line', { class: 'now', x1: x(at), x2: x(at), y1: 4, y2: height - 20 }),
      svg('text', { class: 'faint', x: LEFT, y: height - 6 }, new Date(from).toISOString().slice(0, 16).replace('T', ' ')),
      svg('text', { class: 'faint', x: Math.min(x(at) + 4, WIDTH - 40), y: height - 6 }, 'now'),
    ),
  );
}

/** @param {Key} key @param {number} at */
function waits({ hold, phase, why, retiringUntil }, at) {
  if (hold?.why === 'fleet') return `instances that do not verify it: ${hold.hosts.join(', ')}`;
  if (hold) return `${hold.why === 'time' ? 'its time' : 'caches of the JWKS'}, in ${span(hold.until - at)}`;
  if (phase === 'retiring' && retiringUntil !== undefined) return `its tokens to end, in ${span(retiringUntil - at)}`;
  return why ?? '';
}

/** @param {Overview} found */
export function showFleet({ instances, releases, windows, cohorts }) {
  show(
    'releases',
    table(
      ['Release', 'Instances', 'Requests#', 'Answered 503#', 'Own faults#', 'Half within', '99 % within'],
      releases.map(({ version, instances: names, lately }) => [
        version,
        names.join(', '),
        lately ? number(lately.requests) : '',
        lately ? number(lately.unavailable) : '',
        lately ? number(lately.faults) : '',
        lately ? `${lately.p50Ms} ms` : '',
        lately ? `${lately.p99Ms} ms` : '',
      ]),
      'No instance is alive on this Redis.',
    ),
  );
  show(
    'instances',
    table(
      ['Instance', 'Version', 'Up', 'Signing', 'Key', 'Flags', 'Hears events', 'Clock', 'Configuration'],
      instances.map((one) => [
        `${one.host}/${one.instance.slice(0, 4)}`,
        one.version,
        span(one.upSeconds * 1000),
        el('span', { class: one.signing === 'healthy' ? 'good' : 'bad' }, one.signing),
        el('code', {}, one.signs?.slice(0, 8) ?? 'none'),
        one.flags,
        one.lagSeconds === undefined ? 'never' : `${one.lagSeconds} s ago`,
        `${one.clockOffSeconds > 0 ? '+' : ''}${one.clockOffSeconds} s`,
        el('code', {}, one.fingerprint.slice(0, 6)),
      ]),
      'No instance is alive on this Redis.',
    ),
  );
  show(
    'windows',
    table(
      ['Cohort', 'Of', 'Failed#', 'Requests#', 'People#'],
      windows.map(({ cohort, of, failures, requests, subjects }) => [cohort, of, failures, number(requests), number(subjects)]),
      'Nothing to judge at the moment.',
    ),
  );
  show(
    'mismatches',
    table(
      ['Cohort', 'Code', 'Times#'],
      cohorts.flatMap(({ cohort, figures: { shadow } }) =>
        Object.entries(shadow.codes).map(([code, times]) => [cohort, el('code', {}, code), number(times)]),
      ),
      `None in ${number(cohorts.reduce((sum, { figures: { shadow } }) => sum + shadow.same + shadow.mismatch, 0))} shadow mints.`,
    ),
  );
}
