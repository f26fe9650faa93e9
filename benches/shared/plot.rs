//! A small line plot as one self-contained SVG: what the benches draw their curves with. Included with `#[path]`.
//!
//! The file carries its own style, with a second set of colours for a dark background; the series' colours are those of Okabe
//! and Ito, which people who do not see all colours tell apart. Lines are steps: a curve of "how much was there when" jumps.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 60.0;
/// About as many ticks as an axis gets.
const TICKS: f64 = 7.0;
/// Nobody sees more points than there are pixels; a curve of 100,000 nodes is thinned to so many.
const MOST_POINTS: usize = 2_000;

/// Okabe and Ito, for a light background and, brightened where it must be, for a dark one.
const COLOURS: [(&str, &str); 7] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2ed3a5"),
    ("#cc79a7", "#e6a0c8"),
    ("#8a6d00", "#e69f00"),
    ("#5b3fa0", "#b39ddb"),
    ("#444444", "#cccccc"),
];

/// One line of a plot.
pub(crate) struct Series {
    /// What the legend calls it.
    pub(crate) name: String,
    /// In the order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot of some lines over one pair of axes.
pub(crate) struct Plot {
    /// Above the plot.
    pub(crate) title: String,
    /// Below the x axis.
    pub(crate) x_label: String,
    /// Along the y axis.
    pub(crate) y_label: String,
    /// The lines.
    pub(crate) series: Vec<Series>,
    /// Vertical lines with a label, the ideal for example.
    pub(crate) marks: Vec<(f64, String)>,
}

/// One axis: its end and the distance of its ticks. Axes begin at 0.
struct Axis {
    end: f64,
    step: f64,
}

// === impl Plot ===

impl Plot {
    /// The plot as the text of an SVG file.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::to(points().map(|point| point.0).chain(self.marks.iter().map(|mark| mark.0)));
        let y = Axis::to(points().map(|point| point.1));
        let mut out = String::new();
        self.head(&mut out);
        self.axes(&mut out, &x, &y);
        self.lines(&mut out, &x, &y);
        self.verticals(&mut out, &x);
        self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn head(&self, out: &mut String) {
        let _ = write!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="13">
<title>{}</title>
<style>.back{{fill:#fff}}text{{fill:#222}}.grid{{stroke:#ddd}}.frame{{stroke:#555;fill:none}}.mark{{stroke:#777;stroke-dasharray:5 4}}.line{{fill:none;stroke-width:2;stroke-linejoin:round}}
"#,
            escaped(&self.title)
        );
        for (index, (light, _)) in COLOURS.iter().enumerate() {
            let _ = write!(out, ".c{index}{{stroke:{light}}}");
        }
        out.push_str("\n@media(prefers-color-scheme:dark){.back{fill:#16181c}text{fill:#ddd}.grid{stroke:#33373d}.frame{stroke:#999}.mark{stroke:#aaa}");
        for (index, (_, dark)) in COLOURS.iter().enumerate() {
            let _ = write!(out, ".c{index}{{stroke:{dark}}}");
        }
        out.push_str("}</style>\n");
        let _ = writeln!(out, r#"<rect class="back" width="{WIDTH}" height="{HEIGHT}"/>"#);
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        let _ = writeln!(
            out,
            r#"<text x="{middle}" y="26" text-anchor="middle" font-size="16">{}</text>"#,
            escaped(&self.title)
        );
    }

    fn axes(&self, out: &mut String, x: &Axis, y: &Axis) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in x.ticks() {
            let at = across(x, tick);
            let _ = writeln!(out, r#"<path class="grid" d="M{at:.1} {TOP}V{bottom}"/>"#);
            let _ = writeln!(
                out,
                r#"<text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"#,
                bottom + 18.0,
                x.label(tick)
            );
        }
        for tick in y.ticks() {
            let at = down(y, tick);
            let _ = writeln!(out, r#"<path class="grid" d="M{LEFT} {at:.1}H{right}"/>"#);
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                LEFT - 8.0,
                at + 4.5,
                y.label(tick)
            );
        }
        let _ = writeln!(
            out,
            r#"<rect class="frame" x="{LEFT}" y="{TOP}" width="{}" height="{}"/>"#,
            right - LEFT,
            bottom - TOP
        );
        let (middle, centre) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            out,
            r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            HEIGHT - 16.0,
            escaped(&self.x_label)
        );
        let _ = writeln!(
            out,
            r#"<text transform="translate(20 {centre}) rotate(-90)" text-anchor="middle">{}</text>"#,
            escaped(&self.y_label)
        );
    }

    fn lines(&self, out: &mut String, x: &Axis, y: &Axis) {
        for (index, series) in self.series.iter().enumerate() {
            let stride = series.points.len().div_ceil(MOST_POINTS).max(1);
            let last = series.points.len().saturating_sub(1);
            let kept = series.points.iter().enumerate().filter(|(nth, point)| {
                point.0.is_finite() && point.1.is_finite() && (nth % stride == 0 || *nth == last)
            });
            let mut path = String::new();
            for (nth, (_, point)) in kept.enumerate() {
                let (px, py) = (across(x, point.0), down(y, point.1));
                let _ = if nth == 0 {
                    write!(path, "M{px:.1} {py:.1}")
                } else {
                    write!(path, "H{px:.1}V{py:.1}")
                };
            }
            let _ = writeln!(out, r#"<path class="line c{}" d="{path}"/>"#, index % COLOURS.len());
        }
    }

    fn verticals(&self, out: &mut String, x: &Axis) {
        for (nth, (at, label)) in self.marks.iter().enumerate().filter(|(_, mark)| mark.0.is_finite()) {
            let (px, bottom) = (across(x, *at), HEIGHT - BOTTOM);
            let _ = writeln!(out, r#"<path class="mark" d="M{px:.1} {TOP}V{bottom}"/>"#);
            // labels of marks that are close to each other would lie on each other: one row each, on the side with room
            let row = TOP + 16.0 + 16.0 * (nth % 8) as f64;
            let (shift, anchor) = if px > WIDTH * 0.7 { (-5.0, "end") } else { (5.0, "start") };
            let _ = writeln!(
                out,
                r#"<text x="{:.1}" y="{row}" text-anchor="{anchor}">{}</text>"#,
                px + shift,
                escaped(label)
            );
        }
    }

    /// In the lower right corner, where a curve that rises to the right leaves room.
    fn legend(&self, out: &mut String) {
        let widest = self.series.iter().map(|series| series.name.chars().count()).max().unwrap_or(0);
        let left = (WIDTH - RIGHT - 58.0 - 7.2 * widest as f64).max(LEFT + 8.0);
        let top = HEIGHT - BOTTOM - 14.0 - 20.0 * self.series.len() as f64;
        for (index, series) in self.series.iter().enumerate() {
            let row = top + 20.0 * index as f64 + 12.0;
            let _ = writeln!(out, r#"<path class="line c{}" d="M{left} {row}h28"/>"#, index % COLOURS.len());
            let _ = writeln!(
                out,
                r#"<text x="{}" y="{}">{}</text>"#,
                left + 36.0,
                row + 4.5,
                escaped(&series.name)
            );
        }
    }
}

// === impl Axis ===

impl Axis {
    /// The axis from 0 to a round number not below any of `values`.
    fn to(values: impl Iterator<Item = f64>) -> Self {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|round| round * power).find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        Self { end: (most / step - 1e-9).ceil() * step, step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = (self.end / self.step).round() as u32;
        (0..=count).map(|nth| f64::from(nth) * self.step)
    }

    /// With as many decimals as the step has.
    fn label(&self, tick: f64) -> String {
        let decimals = (0..9).find(|places| {
            let scaled = self.step * 10f64.powi(*places);
            (scaled - scaled.round()).abs() < 1e-6
        });
        format!("{tick:.*}", usize::try_from(decimals.unwrap_or(9)).unwrap_or(9))
    }
}

fn across(axis: &Axis, value: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * value / axis.end
}

fn down(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / axis.end
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            each if each.is_control() => out.push(' '),
            each => out.push(each),
        }
    }
    out
}
