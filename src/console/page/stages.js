/**
 * What the page knows of a stage. `back`: people return to their sessions at it.
 * @typedef {{ name: string, tone: 'sessions' | 'tokens', safe: boolean, back: boolean }} StageFacts
 */

/** @type {StageFacts[]} */
let known = [];

/** @param {StageFacts[]} stages */
export function knowStages(stages) {
  known = stages;
}

/** @param {string} name @returns {StageFacts | undefined} */
export const factsOf = (name) => known.find((stage) => stage.name === name);

/** The one that holds everybody where they are. */
export const safeStage = () => known.find(({ safe }) => safe)?.name ?? '';
