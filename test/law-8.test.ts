import { describe, expect, it } from 'vitest';
import { findLeaks, readRun, remember } from './support/transcript.js';

describe('Law 8: no secret leaves', () => {
  it('nothing that the whole run has logged, counted or answered with an error holds a token, cookie, session id, key, secret or subject', () => {
    const { output, secrets } = readRun();
    // Shown as counts only: a failure must not print what leaked.
    expect(secrets.length, 'secrets that the run used').toBeGreaterThan(100);
    expect(output.length, 'characters that the run let out').toBeGreaterThan(100_000);
    const leaks = findLeaks(output, secrets);
    expect(leaks.map((secret) => `${secret.slice(0, 6)}… (${secret.length} characters)`)).toEqual([]);
  });

  it('the search finds a secret where there is one', () => {
    remember('a-planted-secret');
    expect(findLeaks('{"msg":"a-planted-secret"}', readRun().secrets)).toEqual(['a-planted-secret']);
  });
});
