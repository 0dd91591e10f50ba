import { expect, it } from 'vitest';
import { createSigningHealth, type SigningState } from '../../src/keys/health.js';

function run(...results: SigningState[]): string[] {
  const moves: string[] = [];
  const health = createSigningHealth((from, to) => moves.push(`${from ?? 'start'} → ${to}`));
  for (const result of results) health.observe(result);
  return [...moves, `now ${health.state}${health.improving ? ', improving' : ''}`];
}

it('starts as the first self-test says', () => {
  expect(run('healthy')).toEqual(['start → healthy', 'now healthy']);
  expect(run('broken')).toEqual(['start → broken', 'now broken']);
});

it('believes worse at once', () => {
  expect(run('healthy', 'degraded', 'broken')).toEqual(['start → healthy', 'healthy → degraded', 'degraded → broken', 'now broken']);
});

it('believes better after two clean self-tests in a row', () => {
  expect(run('broken', 'healthy')).toEqual(['start → broken', 'now broken, improving']);
  expect(run('broken', 'healthy', 'healthy')).toEqual(['start → broken', 'broken → healthy', 'now healthy']);
});

it('a bad one between starts the count anew', () => {
  expect(run('broken', 'healthy', 'broken', 'healthy')).toEqual(['start → broken', 'now broken, improving']);
});

it('believes no more than the worse of the two', () => {
  expect(run('broken', 'healthy', 'degraded')).toEqual(['start → broken', 'broken → degraded', 'now degraded']);
});
