import { clampNames } from '../console/clamping.js';
import { type Forecast, type ForecastAnswer, forecast } from '../console/forecast.js';
import { holds } from '../rollout/clamp.js';
import { readProgress } from '../rollout/progress.js';
import { STAGE_TABLE, type Stage } from '../stages.js';
import { print } from './print.js';
import { withRoom } from './room.js';
import { table } from './words.js';

export interface WhatIfOptions {
  readonly config: string;
  readonly cohort: string;
  readonly stage: Stage;
  readonly json?: boolean;
}

const MINUTES = 60;
/** With a smaller share of the requests the figures are too small. */
const COUNTED = 0.95;

/** `crossfade what-if`: what the people of a cohort would be answered at a stage, by what they did in the last hour. Changes nothing. */
export async function whatIf(options: WhatIfOptions): Promise<void> {
  const { cohort, stage, json = false } = options;
  await withRoom(options, async ({ config, control, client, nowMs }) => {
    const { cohorts } = clampNames(config);
    if (!cohorts.includes(cohort)) throw new Error(`there is no cohort ${cohort}: there are ${cohorts.join(', ')}`);
    const at = await nowMs();
    const lastHour = await readProgress(client, control.prefix, 'minute', MINUTES, at);
    const found = await forecast({ config, client, prefix: control.prefix }, { cohort, stage, lastHour, nowMs: at });
    await control.clamps.sync();
    const held = control.clamps.all
      .filter(({ selector }) => holds(selector, found.client, cohort))
      .map(({ stage: most, by, why }) => `held at ${most} by the ${by} (${why})`);
    if (json) print.json({ ...found, held });
    else for (const line of describe(found, held, config.rollout.nudgesPerSecond)) print.line(line);
  });
}

const ANSWERS: Readonly<Record<ForecastAnswer, string>> = {
  token: '200 by token',
  session: '200 by session',
  nudge: '200 and a nudge',
  'exchange-first': '401 exchange first',
  unavailable: '503',
};

function describe({ cohort, stage, minutes, share, rows, moving }: Forecast, held: readonly string[], nudges: number): string[] {
  if (rows.every(({ answer, requests }) => answer === 'unavailable' || requests === 0))
    return [`Nobody of ${cohort} came in the last hour: there is nothing to tell it by.`];
  const figure = (number: number) => number.toLocaleString('en-US');
  return [
    `${cohort} at ${stage}, by its requests of the last ${minutes < 1 ? 'minute' : `${minutes} min`}:`,
    ...table([
      ['  ANSWER', 'PEOPLE', 'REQUESTS/S', 'VERSIONS'],
      ...rows.map(({ answer, people, requestsPerSecond, versions }) => [
        `  ${ANSWERS[answer]}`,
        answer === 'unavailable' ? '' : figure(people),
        figure(requestsPerSecond),
        answer === 'unavailable' ? 'of all cohorts, as now' : versions.map((version) => (version === '-' ? 'none said' : version)).join(', '),
      ]),
    ]),
    ...(share < COUNTED
      ? [`Only ${Math.round(share * 100)} % of its requests are in this: an older release counts the others without saying how they came.`]
      : []),
    describeMoving(moving, stage, nudges),
    ...held.map((one) => `${cohort} is ${one}: none of this happens before that is released.`),
    'Nothing was changed.',
  ];
}

function describeMoving({ people, requests, peakPerSecond, minutes, limited }: Forecast['moving'], stage: Stage, nudges: number): string {
  if (requests === 0) return 'Nobody would be told to move.';
  if (people === 0) return 'Fewer people would be told to move than can be told apart from those who hold a token.';
  const [verb, noun] = STAGE_TABLE[stage].nudge === 'back' ? ['return', 'returns'] : ['exchange', 'exchanges'];
  const limit = limited ? ` (rollout.nudgesPerSecond is ${nudges})` : '';
  const time = minutes === undefined ? '' : ` 95 % have in about ${minutes < 1 ? 'a minute' : `${Math.round(minutes)} min`}.`;
  return `${people === 1 ? '1 person' : `${people.toLocaleString('en-US')} people`} would ${verb}: ${peakPerSecond.toLocaleString('en-US')} ${noun} a second at most${limit}.${time}`;
}
