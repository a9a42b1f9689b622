use super::*;
use roxmltree::{Document, Node};

fn parsed(svg: &str) -> Document<'_> {
    Document::parse(svg).unwrap_or_else(|error| panic!("{error}\n{svg}"))
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).and_then(|v| v.parse().ok()).unwrap_or(f64::NAN)
}

fn texts(document: &Document<'_>) -> Vec<String> {
    let nodes = document.descendants().filter(|n| n.has_tag_name("text"));
    nodes.filter_map(|n| n.text()).map(|t| t.trim().to_owned()).collect()
}

/// The tick labels of an axis with their places along it.
fn ticks(document: &Document<'_>, along: &str, anchor: &str, size: &str) -> Vec<(String, f64)> {
    let nodes = document.descendants().filter(|n| n.has_tag_name("text"));
    nodes
        .filter(|n| n.attribute("text-anchor") == Some(anchor) && n.attribute("font-size") == Some(size))
        .map(|n| (n.text().unwrap_or_default().trim().to_owned(), number(n, along)))
        .collect()
}

fn points(document: &Document<'_>, stroke: &str) -> Vec<(f64, f64)> {
    let lines = document.descendants().filter(|n| n.has_tag_name("polyline"));
    let line = lines
        .filter(|n| n.attribute("stroke") == Some(stroke))
        .max_by_key(|n| n.attribute("points").map_or(0, str::len));
    let text = line.and_then(|n| n.attribute("points")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pair| pair.split_once(','))
        .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
        .collect()
}

fn two_lines() -> LineChart {
    LineChart {
        title: "Loss".into(),
        unit: "nats".into(),
        x_label: "step".into(),
        series: vec![
            Series::new("head 1", vec![(0.0, 1.0), (50.0, 2.0), (100.0, 3.0)]),
            Series::new("head 2", vec![(0.0, 3.0), (50.0, 1.0), (100.0, 1.0)]).marked(Mark::Dashed),
        ],
        ..LineChart::default()
    }
}

#[test]
fn points_lie_where_the_ticks_say() {
    let svg = two_lines().svg().unwrap();
    let document = parsed(&svg);
    let x: Vec<_> = ticks(&document, "x", "middle", "24");
    let at = |label: &str| x.iter().find(|(text, _)| text == label).map(|(_, x)| *x).unwrap();
    let y: Vec<_> = ticks(&document, "y", "end", "24");
    let level = |label: &str| y.iter().find(|(text, _)| text == label).map(|(_, y)| *y).unwrap();
    let line = points(&document, "#2F7FD0");
    assert_eq!(line.len(), 3, "{svg}");
    for (point, expected) in line.iter().zip([
        (at("0"), level("1")),
        ((at("40") + at("60")) / 2.0, level("2")),
        (at("100"), level("3")),
    ]) {
        assert!(
            (point.0 - expected.0).abs() <= 2.0 && (point.1 - expected.1).abs() <= 2.0,
            "{point:?} {expected:?}"
        );
    }
    assert!(line[0].1 > line[2].1, "larger values are higher up");
}

#[test]
fn a_logarithmic_axis_puts_equal_ratios_at_equal_distances() {
    let chart = LineChart {
        series: vec![Series::new("", vec![(0.0, 1e-6), (1.0, 1e-4), (2.0, 1e-2)])],
        y_scale: Scale::Log,
        ..LineChart::default()
    };
    let svg = chart.svg().unwrap();
    let line = points(&parsed(&svg), "#2F7FD0");
    assert!(
        (line[0].1 - line[1].1 - (line[1].1 - line[2].1)).abs() <= 1.0,
        "{line:?}"
    );
}

#[test]
fn names_are_in_the_legend_and_their_characters_are_harmless() {
    let mut chart = two_lines();
    chart.title = "a < b & \"c\" </svg><script>".into();
    chart.series[0].name = "<b>x</b> & y".into();
    let svg = chart.svg().unwrap();
    let document = parsed(&svg);
    let texts = texts(&document);
    assert!(
        texts.contains(&"<b>x</b> & y".to_owned()) && texts.contains(&"head 2".to_owned()),
        "{texts:?}"
    );
    assert!(texts.contains(&"a < b & \"c\" </svg><script>".to_owned()), "{texts:?}");
    assert!(!svg.contains("<script"));
    assert_eq!(
        document.root_element().attribute("aria-label"),
        Some(chart.title.as_str())
    );
}

#[test]
fn text_takes_the_page_s_colour_and_dashes_replace_colours_that_only_mark_them() {
    let svg = two_lines().svg().unwrap();
    let document = parsed(&svg);
    let nodes = document.descendants().filter(|n| n.has_tag_name("text"));
    assert!(nodes.clone().count() > 8);
    assert!(nodes.into_iter().all(|n| n.attribute("fill") == Some("currentColor")));
    assert!(!svg.contains("#0102") && !svg.contains("#0103"), "{svg}");
    let dashed = document
        .descendants()
        .filter(|n| n.attribute("stroke-dasharray").is_some());
    assert!(dashed.count() >= 2, "the line and its legend");
}

#[test]
fn a_missing_value_is_a_gap_and_a_lone_one_a_dot() {
    let chart = LineChart {
        series: vec![Series::new(
            "",
            vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 2.0)],
        )],
        ..LineChart::default()
    };
    let svg = chart.svg().unwrap();
    let document = parsed(&svg);
    assert_eq!(points(&document, "#2F7FD0").len(), 2);
    assert_eq!(document.descendants().filter(|n| n.has_tag_name("circle")).count(), 1);
}

#[test]
fn tick_labels_do_not_overlap() {
    for high in [1e-7, 0.3, 7.0, 84.0, 99_999.0, 3.2e9] {
        let chart = LineChart {
            series: vec![Series::new("", vec![(0.0, 0.0), (high, high)])],
            ..LineChart::default()
        };
        let svg = chart.svg().unwrap();
        let document = parsed(&svg);
        let labels = ticks(&document, "x", "middle", "24");
        assert!((2..=8).contains(&labels.len()), "{labels:?}");
        for pair in labels.windows(2) {
            let width = 22.0
                * 0.6
                * pair
                    .iter()
                    .map(|(text, _)| text.chars().count() as f64)
                    .fold(0.0, f64::max);
            assert!(pair[1].1 - pair[0].1 > width, "{labels:?}");
        }
    }
}

#[test]
fn bars_are_as_long_as_their_values_and_carry_their_intervals() {
    let bar = |label: &str, value: f64, interval| Bar {
        label: label.into(),
        value,
        interval,
        shown: format!("{value}"),
        ..Bar::default()
    };
    let chart = BarChart {
        title: "pass@1".into(),
        bars: vec![
            bar("mbpp", 0.2, Some([0.1, 0.3])),
            bar("humaneval, temperature 0.8 & more", 0.4, None),
            bar("missing", f64::NAN, None),
        ],
        ..BarChart::default()
    };
    let svg = chart.svg().unwrap();
    let document = parsed(&svg);
    let bars: Vec<f64> = document
        .descendants()
        .filter(|n| n.has_tag_name("rect"))
        .map(|n| number(n, "width"))
        .collect();
    assert_eq!(bars.len(), 2, "{svg}");
    assert!((bars[1] / bars[0] - 2.0).abs() < 0.02, "{bars:?}");
    let whisker = points_of_length(&document, bars[0]);
    assert!(whisker, "an interval as wide as the value 0.2 is long: {svg}");
    assert!(texts(&document).contains(&"NaN".to_owned()));
}

fn points_of_length(document: &Document<'_>, length: f64) -> bool {
    let lines = document.descendants().filter(|n| n.has_tag_name("polyline"));
    lines.filter_map(|n| n.attribute("points")).any(|text| {
        let x: Vec<f64> = text
            .split_whitespace()
            .filter_map(|pair| pair.split_once(',')?.0.parse().ok())
            .collect();
        matches!(x.as_slice(), [a, b] if (b - a - length).abs() <= 2.0)
    })
}

#[test]
fn a_heat_map_is_darkest_where_most_values_are() {
    let map = HeatMap {
        title: "Weights".into(),
        edges: vec![0.0, 0.1, 1.0, 10.0],
        y_scale: Scale::Log,
        columns: vec![(1.0, vec![1.0, 8.0, 1.0]), (2.0, vec![0.0, 5.0, 5.0])],
        ..HeatMap::default()
    };
    let svg = map.svg().unwrap();
    let document = parsed(&svg);
    let cells: Vec<(f64, f64)> = document
        .descendants()
        .filter(|n| n.has_tag_name("rect"))
        .map(|n| (number(n, "opacity"), number(n, "height")))
        .collect();
    // Five cells that hold values, five steps of the key.
    assert_eq!(cells.len(), 10, "{svg}");
    let opacities: Vec<f64> = cells[..5].iter().map(|(opacity, _)| *opacity).collect();
    assert_eq!(opacities, [0.35, 1.0, 0.35, 0.79, 0.79]);
    assert!(
        (cells[0].1 - cells[1].1).abs() <= 1.0,
        "the bin from 0 is as high as the next"
    );
}

#[test]
fn nothing_to_show_is_said() {
    for svg in [
        LineChart::default().svg().unwrap(),
        HeatMap::default().svg().unwrap(),
        LineChart {
            series: vec![Series::new("x", vec![(0.0, f64::NAN)])],
            ..LineChart::default()
        }
        .svg()
        .unwrap(),
    ] {
        assert!(texts(&parsed(&svg)).contains(&"no values".to_owned()), "{svg}");
    }
    parsed(&BarChart::default().svg().unwrap());
}

#[test]
fn series_colours_contrast_with_white_and_with_near_black() {
    let luminance = |(r, g, b): (u8, u8, u8)| {
        let linear = |c: u8| {
            let c = f64::from(c) / 255.0;
            if c <= 0.040_45 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
    };
    for color in PALETTE {
        for page in [(255, 255, 255), (0x0d, 0x11, 0x17)] {
            let (a, b) = (luminance(color) + 0.05, luminance(page) + 0.05);
            assert!(a.max(b) / a.min(b) >= 3.0, "{color:?} on {page:?}");
        }
    }
}
