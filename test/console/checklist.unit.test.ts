import { describe, expect, it } from 'vitest';
import { type CohortFigures, judgeReadiness, type ReadinessInput, type StepReadiness } from '../../src/console/checklist.js';

const FIGURES: CohortFigures = {
  lastHour: { session: 40, jwt: 60 },
  today: { session: 5, jwt: 95, all: 100 },
  exchange: { granted: 1000, failed: 0 },
  refresh: { granted: 1000, failed: 0 },
  shadow: { same: 500, mismatch: 0, codes: {} },
  returns: 3,
  exchangeFirst: 0,
};
const INSTANCE = {
  instance: 'i',
  host: 'h',
  version: '1',
  upSeconds: 1,
  signing: 'healthy',
  flags: 'live',
  lagSeconds: 0,
  clockOffSeconds: 0,
  fingerprint: 'f',
} as const;

type Changes = { [Name in keyof ReadinessInput]?: Partial<ReadinessInput[Name]> } & { readonly stage: string; readonly reason?: string };

function judge({ stage, reason = 'flag', figures, fleet, refused }: Omit<Changes, 'refused'> & { refused?: number }): StepReadiness {
  return judgeReadiness({
    cohort: { cohort: 'web', client: 'web', requests: 10, stages: [{ stage, reason, requests: 10 }] },
    figures: { ...FIGURES, ...figures },
    fleet: { instances: [INSTANCE], configurations: 1, clamps: [], problems: [], ...fleet },
    config: {
      clients: [
        { id: 'web', type: 'public', origins: [], refreshTransport: 'body', exchanges: true, wayBack: true, introspect: false, issue: false },
      ],
    },
    refused: refused ?? 0,
  });
}

describe('readiness for the next stage', () => {
  it.each([
    ['recall', 'session-only'],
    ['session-only', 'shadow'],
    ['shadow', 'dual'],
    ['dual', 'jwt-preferred'],
    ['jwt-preferred', 'jwt-only'],
  ])('from %s to %s, where all is well, is blocked by nothing', (stage, next) => {
    expect(judge({ stage })).toMatchObject({ stage, next, blockedBy: [] });
  });

  it('of the last stage there is none', () => {
    expect(judge({ stage: 'jwt-only' })).toEqual({ stage: 'jwt-only', checks: [], blockedBy: [] });
  });

  const cases: [string, Parameters<typeof judge>[0], string, string][] = [
    [
      'a mismatch of the shadow',
      { stage: 'shadow', figures: { shadow: { same: 99, mismatch: 1, codes: { 'roles-differ': 1 } } } },
      'shadow',
      '1 mismatches of 100 in 24 h (roles-differ)',
    ],
    ['no shadow mint at all', { stage: 'shadow', figures: { shadow: { same: 0, mismatch: 0, codes: {} } } }, 'shadow', '0 mismatches of 0 in 24 h'],
    [
      'exchanges that failed',
      { stage: 'dual', figures: { exchange: { granted: 1990, failed: 11 } } },
      'exchange',
      '1,990 of 2,001 succeeded in 24 h',
    ],
    ['refreshes that failed', { stage: 'dual', figures: { refresh: { granted: 0, failed: 1 } } }, 'refresh', '0 of 1 succeeded in 24 h'],
    ['a way back that nobody has taken', { stage: 'dual', figures: { returns: 0 } }, 'return', 'not rehearsed in 30 days'],
    ['a good credential that was refused', { stage: 'dual', refused: 1 }, 'refusals', '1 good credentials refused in the last hour'],
    [
      'people who still come with sessions alone',
      { stage: 'jwt-preferred', figures: { today: { session: 50, jwt: 89, all: 100 } } },
      'people',
      '89 of 100 people came with a token today',
    ],
    ['a clamp', { stage: 'shadow', reason: 'operator' }, 'clamps', 'held by operator'],
    [
      'signing that is not healthy somewhere',
      { stage: 'dual', fleet: { instances: [INSTANCE, { ...INSTANCE, signing: 'degraded' }] } },
      'signing',
      '1 of 2 instances healthy',
    ],
    [
      'two configurations',
      { stage: 'dual', fleet: { instances: [INSTANCE, { ...INSTANCE, fingerprint: 'g' }], configurations: 2 } },
      'fleet',
      '2 live, 2 configurations, nothing needs you',
    ],
    [
      'something that needs somebody',
      { stage: 'dual', fleet: { problems: ['a key was refused'] } },
      'fleet',
      '1 live, 1 configuration, 1 thing needs you',
    ],
  ];
  it.each(cases)('is blocked by %s, and by nothing else', (_, changes, name, figure) => {
    const { checks, blockedBy } = judge(changes);
    expect(blockedBy).toEqual([name]);
    expect(checks.find((check) => check.name === name)?.figure).toBe(figure);
  });
});
