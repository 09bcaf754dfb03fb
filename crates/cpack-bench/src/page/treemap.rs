//! The treemap: a tile for each layer, as large as its files, with the part that the run imported.
//!
//! The layout is that of Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).

use cluster_pack::cli::bytes;

use super::html::{self, escape, percent};
use crate::report::{Layer, Report};

/// Layers smaller than this part of the whole share one tile.
const SMALL: f64 = 0.002;

/// The least width and height of a tile with its name in it, in parts of the whole.
const LABELLED: f64 = 0.07;

/// Position and size, in parts of the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tile {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The layer, or the small layers, of a tile.
#[derive(Debug)]
struct Item {
    name: String,
    detail: String,
    size: u64,
    imported: u64,
    modules: u64,
}

pub(crate) fn section(report: &Report) -> String {
    let items = items(&report.environment.layers);
    let drawn = |class: &str, aspect: f64| {
        let sizes: Vec<f64> = items.iter().map(|item| item.size as f64).collect();
        let tiles = squarify(&sizes, aspect);
        let body: String = items.iter().zip(tiles).map(|(item, tile)| drawn(item, tile)).collect();
        format!("<div class=\"treemap {class}\">\n{body}</div>\n")
    };
    let used = report.environment.layers.iter().filter(|layer| layer.modules > 0).count();
    let note = format!(
        "Each tile is a distribution, as large as its files. The run imported modules from {used} of {}.",
        report.environment.layers.len()
    );
    let legend = "<ul class=\"legend\"><li><i class=\"used\"></i>imported from</li><li><i class=\"unused\"></i>not imported</li><li><i class=\"part\"></i>part of its bytes that are modules in use</li></ul>\n";
    html::section(
        "What is shipped, and what is used",
        &note,
        &[legend, &drawn("wide", 2.2), &drawn("narrow", 0.75)].concat(),
    )
}

/// Large layers, largest first, then one item for all small layers.
fn items(layers: &[Layer]) -> Vec<Item> {
    let whole: u64 = layers.iter().map(|layer| layer.unpacked).sum();
    let is_large = |layer: &&Layer| layer.unpacked as f64 >= whole as f64 * SMALL;
    let mut items: Vec<Item> = layers.iter().filter(is_large).map(item).collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.size));
    let small: Vec<&Layer> = layers.iter().filter(|layer| !is_large(layer) && layer.unpacked > 0).collect();
    if !small.is_empty() {
        let imported = small.iter().filter(|layer| layer.modules > 0).count();
        items.push(Item {
            name: format!("{} smaller", small.len()),
            detail: format!("{imported} of them imported from"),
            size: small.iter().map(|layer| layer.unpacked).sum(),
            imported: small.iter().map(|layer| layer.imported).sum(),
            modules: small.iter().map(|layer| layer.modules).sum(),
        });
    }
    items
}

fn item(layer: &Layer) -> Item {
    Item {
        name: layer.name.clone(),
        detail: format!(
            "{} {}, {} packed, {} modules imported",
            layer.name,
            layer.version,
            bytes(layer.packed),
            layer.modules
        ),
        size: layer.unpacked,
        imported: layer.imported,
        modules: layer.modules,
    }
}

fn drawn(item: &Item, tile: Tile) -> String {
    let class = if item.modules > 0 { "used" } else { "unused" };
    let part = percent(item.imported as f64, item.size as f64).min(100.0);
    let title = format!("{}: {}, {part:.1} % of it imported", item.detail, bytes(item.size));
    let text = if tile.width > LABELLED && tile.height > LABELLED {
        format!("<b>{}</b><span>{}</span>", escape(&item.name), bytes(item.size))
    } else {
        String::new()
    };
    let meter = if item.modules > 0 { format!("<u style=\"width:{part:.2}%\"></u>") } else { String::new() };
    let Tile { x, y, width, height } = tile;
    format!(
        "<div class=\"tile {class}\" style=\"left:{:.3}%;top:{:.3}%;width:{:.3}%;height:{:.3}%\" title=\"{}\">{text}{meter}</div>\n",
        100.0 * x,
        100.0 * y,
        100.0 * width,
        100.0 * height,
        escape(&title)
    )
}

/// Tiles for `sizes`, largest first, in a rectangle that is `aspect` times as wide as high.
fn squarify(sizes: &[f64], aspect: f64) -> Vec<Tile> {
    let total: f64 = sizes.iter().sum();
    let mut tiles = Vec::with_capacity(sizes.len());
    let (mut x, mut y, mut width, mut height) = (0.0, 0.0, aspect, 1.0);
    let areas: Vec<f64> = sizes.iter().map(|size| size / total.max(f64::MIN_POSITIVE) * aspect).collect();
    let mut rest = areas.as_slice();
    while !rest.is_empty() {
        let side = f64::min(width, height).max(f64::MIN_POSITIVE);
        let mut count = 1;
        while count < rest.len() && worst(&rest[..count + 1], side) <= worst(&rest[..count], side) {
            count += 1;
        }
        let (row, others) = rest.split_at(count);
        let depth = row.iter().sum::<f64>() / side;
        let mut along = 0.0;
        for area in row {
            let length = area / depth.max(f64::MIN_POSITIVE);
            let tile = if width >= height {
                Tile { x, y: y + along, width: depth, height: length }
            } else {
                Tile { x: x + along, y, width: length, height: depth }
            };
            tiles.push(Tile { x: tile.x / aspect, width: tile.width / aspect, ..tile });
            along += length;
        }
        if width >= height {
            (x, width) = (x + depth, width - depth);
        } else {
            (y, height) = (y + depth, height - depth);
        }
        rest = others;
    }
    tiles
}

/// The largest ratio of sides among the tiles of a row.
fn worst(row: &[f64], side: f64) -> f64 {
    let sum: f64 = row.iter().sum();
    let of =
        |area: f64| (side * side * area / (sum * sum)).max(sum * sum / (side * side * area.max(f64::MIN_POSITIVE)));
    row.iter().map(|area| of(*area)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn treemap_tiles_fill_the_whole_without_overlap() {
        for aspect in [2.2, 0.75, 1.0] {
            let sizes = [60.0, 60.0, 40.0, 30.0, 20.0, 10.0, 10.0, 1.0];
            let tiles = squarify(&sizes, aspect);
            let area: f64 = tiles.iter().map(|t| t.width * t.height).sum();
            assert!((area - 1.0).abs() < 1e-9, "{area}");
            for (tile, size) in tiles.iter().zip(sizes) {
                assert!((tile.width * tile.height - size / 231.0).abs() < 1e-9, "{tile:?}");
                assert!(
                    tile.x > -1e-9
                        && tile.y > -1e-9
                        && tile.x + tile.width < 1.0 + 1e-9
                        && tile.y + tile.height < 1.0 + 1e-9
                );
            }
            for (at, a) in tiles.iter().enumerate() {
                for b in &tiles[at + 1..] {
                    let apart = |a0: f64, a1: f64, b0: f64, b1: f64| a1 <= b0 + 1e-9 || b1 <= a0 + 1e-9;
                    assert!(
                        apart(a.x, a.x + a.width, b.x, b.x + b.width)
                            || apart(a.y, a.y + a.height, b.y, b.y + b.height),
                        "{a:?} {b:?}"
                    );
                }
            }
        }
        assert!(squarify(&[], 1.0).is_empty());
    }

    #[test]
    fn treemap_joins_the_smallest_layers() {
        let layer = |name: &str, unpacked, modules| Layer { name: name.into(), unpacked, modules, ..Layer::default() };
        let found = items(&[layer("a", 10_000, 1), layer("b", 5, 1), layer("c", 5, 0), layer("d", 0, 0)]);
        let told: Vec<_> = found.iter().map(|i| (i.name.as_str(), i.size)).collect();
        assert_eq!(told, [("a", 10_000), ("2 smaller", 10)]);
        assert_eq!(found[1].detail, "1 of them imported from");
    }
}
