import { randomBytes } from 'node:crypto';
import { pseudonymsOf, Secret } from '../../src/config/secret.js';
import { FleetSecrets } from '../../src/redis/fleet-keyring.js';

export function makeSecret(): Secret {
  return new Secret(randomBytes(32).toString('base64url'));
}

/** Newest first, as in the file; the last one is the one that the fleet began with. */
export function holdSecrets(...secrets: Secret[]): FleetSecrets {
  const first = secrets.at(-1);
  if (!first) return new FleetSecrets({ secrets: [makeSecret()] });
  return new FleetSecrets(secrets.length === 1 ? { secrets } : { secrets, pseudonyms: pseudonymsOf(first) });
}
