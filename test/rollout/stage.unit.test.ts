import { describe, expect, it } from 'vitest';
import { effectiveStage, type StageInputs } from '../../src/rollout/stage.js';
import { STAGE_TABLE } from '../../src/stages.js';

const free: StageInputs = { flag: 'jwt-only', defaultStage: 'session-only', killSwitch: false, signing: true, clientExchanges: true };

describe('the effective stage', () => {
  it.each<[string, Partial<StageInputs>, string, string]>([
    ['the flag, where nothing is lower', {}, 'jwt-only', 'flag'],
    ['the default, where the flag says nothing', { flag: undefined, defaultStage: 'dual' }, 'dual', 'default'],
    ['a client that cannot exchange is held at jwt-preferred', { clientExchanges: false }, 'jwt-preferred', 'client'],
    ['broken signing', { signing: false }, 'session-only', 'signing'],
    ['the kill switch', { killSwitch: true }, 'session-only', 'kill-switch'],
    ["an operator's clamp", { operator: 'dual' }, 'dual', 'operator'],
    ['the guardrail', { guardrail: true }, 'session-only', 'guardrail'],
    ['at a tie the strongest reason is told', { signing: false, killSwitch: true, guardrail: true, flag: 'session-only' }, 'session-only', 'signing'],
    ['at a tie the default is told before nothing else', { flag: undefined, killSwitch: true }, 'session-only', 'kill-switch'],
    ['recall is below everything', { flag: 'recall', signing: false, killSwitch: true }, 'recall', 'flag'],
    ['a clamp never raises', { flag: 'shadow', operator: 'dual' }, 'shadow', 'flag'],
  ])('%s', (_what, inputs, stage, reason) => {
    expect(effectiveStage({ ...free, ...inputs })).toEqual({ stage, reason });
  });

  it('no stage refuses what was issued: every stage accepts sessions for pages', () => {
    expect(Object.entries(STAGE_TABLE).map(([stage, { session, exchange, nudge }]) => [stage, session, exchange, nudge ?? '–'])).toEqual([
      ['recall', 'accepted', false, 'back'],
      ['session-only', 'accepted', false, '–'],
      ['shadow', 'accepted', false, '–'],
      ['dual', 'accepted', true, '–'],
      ['jwt-preferred', 'accepted', true, 'forward'],
      ['jwt-only', 'navigation', true, 'forward'],
    ]);
  });
});
