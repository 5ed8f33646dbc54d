// What is there when the page opens.

const example = `def merge(intervals):
    """Merge overlapping intervals."""
    merged = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def total_length(intervals):
    """Return how much the intervals cover together."""
    return `;

editor.area.value = example;
editor.area.setSelectionRange(example.length, example.length);
editor.draw();
// A page that was led here with a finger keeps its keyboard down.
if (matchMedia("(pointer: fine)").matches) editor.area.focus();
watch();
assist.list();
document.addEventListener("key", () => {
  look();
  assist.list();
});
