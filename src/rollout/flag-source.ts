import type { LDClient } from 'launchdarkly-node-server-sdk';
import type { Config } from '../config/config.js';
import { openFileFlagSource } from './flag-file.js';
import { type FlagSource, noFlags } from './flags.js';
import { type LaunchDarklySourceOptions, openLaunchDarklySource, useLaunchDarklyClient } from './launchdarkly.js';

/** The flag source that the configuration names, or the client that the app already has. */
export async function openFlagSource(
  config: Pick<Config, 'rollout'>,
  existing: LDClient | undefined,
  options: Omit<LaunchDarklySourceOptions, 'config'>,
): Promise<FlagSource> {
  const { flags, stageFlag, killSwitchFlag } = config.rollout;
  if (existing) return useLaunchDarklyClient(existing, options);
  if (flags?.launchdarkly) return await openLaunchDarklySource({ ...options, config: flags.launchdarkly });
  if (flags?.file !== undefined) return await openFileFlagSource({ ...options, path: flags.file, keys: [stageFlag, killSwitchFlag] });
  options.metrics.flagsUp.set(1);
  return noFlags;
}
