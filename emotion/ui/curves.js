// The timeline's behaviour: values under the pointer, a line that follows the player, clicks that move the player.
const parts = () => {
    const time = element.querySelector('.em-time');
    return time && { time, length: +time.dataset.length, strips: time.querySelector('.em-strips'),
        video: document.querySelector('#' + time.dataset.player + ' video') };
};
const at = (event, p) => {
    const box = p.strips.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * p.length;
};
const nearest = (rows, second) => {
    let low = 0, high = rows.length - 1;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (rows[middle][0] < second) low = middle + 1; else high = middle;
    }
    if (low && second - rows[low - 1][0] < rows[low][0] - second) low--;
    return Math.abs(rows[low][0] - second) <= 1 ? rows[low][1] : null;
};
const say = (p, second) => {
    const lines = [...p.time.querySelectorAll('.em-strip')].map(strip => {
        strip.rows ??= JSON.parse(strip.dataset.samples);
        const words = nearest(strip.rows, second);
        return words && `${strip.dataset.name}: ${words}`;
    });
    p.time.querySelector('.em-said').textContent = [second.toFixed(2) + ' s', ...lines.filter(Boolean)].join('  ·  ');
};
const move = (p, second) => {
    p.time.querySelector('.em-now').style.left = 100 * second / p.length + '%';
    p.time.querySelector('input').value = second;
    say(p, second);
};
const seek = (p, second) => {
    if (p.video) p.video.currentTime = second;
    move(p, second);
};
element.addEventListener('pointermove', event => {
    const p = parts(), inside = p && event.target.closest('.em-lane');
    if (p) p.time.querySelector('.em-hover').style.display = inside ? 'block' : 'none';
    if (!inside) return;
    const second = at(event, p);
    p.time.querySelector('.em-hover').style.left = 100 * second / p.length + '%';
    say(p, second);
});
element.addEventListener('click', event => {
    const p = parts(), peak = event.target.closest('button[data-at]');
    if (p && peak) seek(p, +peak.dataset.at);
    else if (p && event.target.closest('.em-lane')) seek(p, at(event, p));
});
element.addEventListener('input', event => {
    const p = parts();
    if (p && event.target.type === 'range') seek(p, +event.target.value);
});
document.addEventListener('timeupdate', event => {
    const p = parts();
    if (p && event.target === p.video) move(p, event.target.currentTime);
}, true);
