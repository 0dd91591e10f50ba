import { describe, expect, it } from 'vitest';
import type { ConfigInput } from '../../src/config/config.js';
import { resolveConfig } from '../../src/config/load.js';
import { configSchema } from '../../src/config/schema.js';
import { type ClientTraits, createClientRegistry } from '../../src/rollout/clients.js';

const { clients, rollout } = configSchema.parse({
  issuer: 'https://app.example.com',
  audience: ['a'],
  fleetSecretFile: 'x',
  redis: { url: 'redis://x' },
  sessions: [],
  clients: [
    { id: 'web', origins: ['https://app.example.com'], exchanges: true, match: { host: 'app.example.com' } },
    { id: 'ios', exchanges: true, minVersion: '4.2.0', match: { userAgent: 'AcmeiOS/*' } },
    { id: 'tv', exchanges: true, match: { header: { 'x-device': 'tv' }, userAgent: 'TV' } },
    { id: 'old' },
  ],
  rollout: {
    cohorts: [
      { name: 'pilot', client: 'web', tenants: ['acme'] },
      { name: 'phones', client: 'ios' },
    ],
  },
} satisfies ConfigInput);
const registry = createClientRegistry(clients, rollout.cohorts);

function resolve(traits: Partial<ClientTraits> & { headers?: Record<string, string> }) {
  const { id, version, exchanges } = registry.resolve({ header: (name) => traits.headers?.[name], ...traits });
  return { id, version, exchanges };
}

describe('which client a request belongs to', () => {
  it.each<[string, Parameters<typeof resolve>[0], string]>([
    ['what is proven comes first', { provenId: 'old', origin: 'https://app.example.com' }, 'old'],
    ['then the origin', { origin: 'https://app.example.com', userAgent: 'AcmeiOS/5', claimedId: 'old' }, 'web'],
    ['then a match', { userAgent: 'AcmeiOS/5.0 (iPhone)', claimedId: 'old' }, 'ios'],
    ['the host matches with and without its port', { host: 'app.example.com:8443' }, 'web'],
    ['all of a match must fit', { userAgent: 'TV', claimedId: 'old' }, 'old'],
    ['all of a match fit', { userAgent: 'TV', headers: { 'x-device': 'tv' } }, 'tv'],
    ['then what it claims', { claimedId: 'old' }, 'old'],
    ['a claim of an unknown name is unknown', { claimedId: 'nobody' }, 'unknown'],
    ['a proven id that is no longer registered is unknown', { provenId: 'gone', claimedId: 'old' }, 'unknown'],
    ['nothing at all is unknown', {}, 'unknown'],
  ])('%s', (_what, traits, id) => {
    expect(resolve(traits).id).toBe(id);
  });

  it.each([
    ['AcmeiOS/4.2.0', true],
    ['AcmeiOS/4.10', true],
    ['AcmeiOS/4.2', true],
    ['AcmeiOS/5-beta', true],
    ['AcmeiOS/4.1.9', false],
    ['AcmeiOS/', false],
    ['AcmeiOS/next', false],
  ])('%s knows how to exchange: %s', (userAgent, exchanges) => {
    expect(resolve({ userAgent }).exchanges).toBe(exchanges);
  });

  it('takes the version from the header where the user agent has none, and none is below every minimum', () => {
    expect(resolve({ provenId: 'ios', claimedVersion: '4.3' })).toEqual({ id: 'ios', version: '4.3', exchanges: true });
    expect(resolve({ provenId: 'ios' })).toEqual({ id: 'ios', version: undefined, exchanges: false });
  });

  it('names the cohort of a tenant of a client', () => {
    expect([
      registry.cohortOf('web', 'acme'),
      registry.cohortOf('web', 'globex'),
      registry.cohortOf('ios', undefined),
      registry.cohortOf('old', 'acme'),
    ]).toEqual(['pilot', undefined, 'phones', undefined]);
  });
});

it('a cohort of a client that is not registered is a problem of the config', () => {
  expect(() =>
    resolveConfig({
      issuer: 'https://a.example',
      audience: ['a'],
      fleetSecretFile: '/nowhere',
      redis: { url: 'redis://x' },
      sessions: [],
      rollout: { cohorts: [{ name: 'x', client: 'nobody' }] },
    }),
  ).toThrow(/rollout\.cohorts\[0\]\.client: no client has the id nobody/);
});
