import type { Config, FleetSecretLines } from '../config/config.js';
import type { Live, LiveFiles } from '../config/live-files.js';
import type { RedisConnection } from '../redis/connection.js';
import { chooseWriting, type FleetSecrets } from '../redis/fleet-keyring.js';
import type { DeniedSecrets } from './denied-secrets.js';
import type { FleetStore } from './store.js';

/** Follows `fleetSecretFile` while the instance runs. A file that would name persons otherwise is refused. */
export function followFleetSecrets(files: LiveFiles, { fleetSecret }: Pick<Config, 'fleetSecret'>, secrets: FleetSecrets): Live<FleetSecretLines> {
  const live = files.follow<FleetSecretLines>({
    at: 'fleetSecretFile',
    files: [fleetSecret.file],
    initial: fleetSecret.current,
    read() {
      const found = fleetSecret.read();
      if ('problems' in found || secrets.hasNamesOf(found.value)) return found;
      const message = 'the file names persons otherwise than before (another line pseudonyms=, or none): put that line back';
      return { problems: [{ path: 'fleetSecretFile', message }] };
    },
  });
  live.onChange((lines) => secrets.takeFile(lines));
  return live;
}

/**
 * Reads who is there and which secrets are out of use, before anything is read under them or written. Never rejects: while Redis is away
 * nothing is read or written.
 */
export async function chooseAtStart(
  { fleet, secrets, deniedSecrets }: { readonly fleet: FleetStore; readonly secrets: FleetSecrets; readonly deniedSecrets: DeniedSecrets },
  own: RedisConnection,
): Promise<void> {
  try {
    const { live, strangers, under } = await fleet.read(await own.nowMs());
    // Somebody may have taken the list of those out of use away.
    for (const { instance, denied = [] } of live) secrets.deny(denied.filter(({ name }) => secrets.mayDeny(under.get(instance) ?? '', name)));
    secrets.writeWith(chooseWriting(secrets, live, strangers));
    await deniedSecrets.sync();
  } catch {
    // With the first heartbeat.
  }
}
