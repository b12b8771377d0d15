// Slow motion: the server sends few frames then, and the lander is drawn between the last two.

/** The lander of a flight at this time, one frame late. */
export function landerBetween({ latest, previous, arrived, scene, wishes }, now) {
  const [to, from] = [latest.lander, previous?.lander];
  if (!to || !from) return to;
  const share = Math.min(1, (now - arrived) / (1000 / scene.fps / wishes.speed));
  const between = (a, b) => a + (b - a) * share;
  return {
    ...to,
    x: between(from.x, to.x),
    y: between(from.y, to.y),
    angle: between(from.angle, to.angle),
    legs: to.legs.map((leg, i) => leg.map((value, j) => between(from.legs[i][j], value))),
  };
}
