import { describe, expect, it } from 'vitest';
import { type Answered, afterAnswer, afterRenewal, type Renewing } from '../../src/client/steps.js';

const REFUSED: Answered = { demand: 'refresh', isRefused: true, hadToken: true, isLast: false, isSignedOut: false, hasRefreshed: false };
const LATER: Renewing = { demand: 'refresh', outcome: 'later', hadToken: false, mayWait: false, mayGoBack: false };

describe('after an answer', () => {
  it.each<[string, Partial<Answered>, ReturnType<typeof afterAnswer>]>([
    ['that asks for nothing', { demand: undefined, isRefused: false }, 'deliver'],
    ['that asks for nothing, a 401 of the app', { demand: undefined }, 'deliver'],
    ['that refuses the token', {}, 'renew'],
    ['that refuses the cookie', { hadToken: false }, 'renew'],
    ['that wants an exchange first', { demand: 'exchange', hadToken: false }, 'renew'],
    ['that is good and nudges', { demand: 'exchange', isRefused: false, hadToken: false }, 'renew-beside'],
    ['that is good and calls back', { demand: 'goBack', isRefused: false }, 'renew-beside'],
    ['that refuses a token which was just made', { hasRefreshed: true }, 'deliver'],
    ['that refuses the cookie after a refresh', { hasRefreshed: true, hadToken: false }, 'renew'],
    ['to the last try', { isLast: true }, 'deliver'],
    ['to a nudge on the last try', { isLast: true, isRefused: false, demand: 'exchange' }, 'deliver'],
    ['to somebody who is signed out', { isSignedOut: true }, 'deliver'],
    ['that wants an exchange of somebody who is signed out', { isSignedOut: true, demand: 'exchange' }, 'renew'],
  ])('%s', (_, state, step) => {
    expect(afterAnswer({ ...REFUSED, ...state })).toBe(step);
  });
});

describe('after a renewal', () => {
  it.each<[string, Partial<Renewing>, ReturnType<typeof afterRenewal>]>([
    ['that made a token', { outcome: 'renewed' }, 'send'],
    ['that could not be, of a token that was refused: the cookie may do', { hadToken: true }, 'send'],
    ['that ended it, of a token that was refused: the cookie may do', { outcome: 'ended', hadToken: true }, 'send'],
    ['that is told to wait', { mayWait: true, mayGoBack: true }, 'wait'],
    ['that cannot be now', { mayGoBack: true }, 'go-back'],
    ['of an exchange that cannot be now', { demand: 'exchange', mayGoBack: true }, 'deliver'],
    ['that cannot be now, where the return failed as well', {}, 'deliver'],
    ['that says it is over', { outcome: 'ended', mayGoBack: true, mayWait: true }, 'sign-out'],
    ['of an exchange that is refused', { demand: 'exchange', outcome: 'ended' }, 'deliver'],
  ])('%s', (_, state, step) => {
    expect(afterRenewal({ ...LATER, ...state })).toBe(step);
  });
});
