import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { findCircles, judge, readImports } from '../../scripts/lib/layers.js';

describe('the layers of the house', () => {
  it.each([
    ['keys/load.ts', 'tokens/issue.ts', 'keys/load.ts imports tokens/issue.ts: tokens lies above keys'],
    ['errors.ts', 'config/config.ts', 'errors.ts imports config/config.ts: config lies above ground'],
    ['tokens/issue.ts', 'koa', 'tokens/issue.ts knows of Koa (koa)'],
    ['client/tabs.ts', 'errors.ts', 'client/tabs.ts imports errors.ts: client stands apart'],
    ['cli/main.ts', 'client/tabs.ts', 'cli/main.ts imports client/tabs.ts: client stands apart'],
    ['attic/old.ts', 'errors.ts', 'attic/old.ts lies in a folder that has no place in the house'],
    ['clock.ts', 'index.ts', 'clock.ts imports the public names'],
  ])('%s may not import %s', (from, to, words) => {
    expect(judge({ from, to })).toBe(words);
  });

  it.each([
    ['tokens/issue.ts', 'keys/load.ts'],
    ['keys/load.ts', 'keys/jwks.ts'],
    ['index.ts', 'compose/bridge.ts'],
    ['adapters/observe.ts', 'koa'],
    ['redis/client.ts', 'ioredis'],
  ])('%s may import %s', (from, to) => {
    expect(judge({ from, to })).toBeUndefined();
  });

  it('finds a circle, once', () => {
    const imports = [
      { from: 'a.ts', to: 'b.ts' },
      { from: 'b.ts', to: 'c.ts' },
      { from: 'c.ts', to: 'b.ts' },
      { from: 'd.ts', to: 'a.ts' },
    ];
    expect(findCircles(imports)).toEqual(['b.ts → c.ts → b.ts']);
  });

  it('reads the imports of all files, over lines and of types', () => {
    const imports = readImports(fileURLToPath(new URL('../../src', import.meta.url)));
    expect(imports).toContainEqual({ from: 'compose/bridge.ts', to: 'compose/lifecycle.ts' });
    expect(imports).toContainEqual({ from: 'index.ts', to: 'compose/bridge.ts' });
    expect(imports.length).toBeGreaterThan(900);
  });
});
