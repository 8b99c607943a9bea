//! Tensor parallelism: t ranks with slices of one layer's parameters, adding up their partial results where the halves
//! end, must compute what the whole layer computes.

use super::*;

/// What part of the whole layer's tensor a rank holds.
enum Part {
    Whole,
    /// One of t consecutive parts in each of `groups` equal groups of rows (bias: elements).
    Rows {
        groups: usize,
    },
    /// One of t consecutive parts of each row of this width.
    Columns {
        width: usize,
    },
}

fn part_of(name: &str, shape: &LayerShape) -> Part {
    match name {
        "qkv.weight" | "qkv.bias" => Part::Rows { groups: 3 },
        "fc1.weight" | "fc1.bias" => Part::Rows { groups: 1 },
        "projection.weight" => Part::Columns { width: shape.hidden as usize },
        "fc2.weight" => Part::Columns { width: 4 * shape.hidden as usize },
        _ => Part::Whole,
    }
}

fn slice(whole: &[f64], part: &Part, rank: usize, ranks: usize) -> Vec<f64> {
    let cut = |chunk: usize| {
        let own = chunk / ranks;
        whole.chunks_exact(chunk).flat_map(|c| c[rank * own..(rank + 1) * own].to_vec()).collect()
    };
    match part {
        Part::Whole => whole.to_vec(),
        Part::Rows { groups } => cut(whole.len() / groups),
        Part::Columns { width } => cut(*width),
    }
}

struct Group {
    ops: Reference,
    ranks: Vec<Layer<Reference>>,
}

impl Group {
    fn new(whole: &Layer<Reference>, tensor: u64) -> Self {
        let (mut ops, shape) = (Reference::new(), *whole.shape());
        let mut ranks = Vec::new();
        for rank in 0..tensor as usize {
            let mut layer = Layer::new(&mut ops, shape.tensor(tensor), 1000 + rank as u64).unwrap();
            (layer.x, layer.dy) = (whole.x.clone(), whole.dy.clone());
            for (own, all) in layer.parameters_mut().into_iter().zip(whole.parameters()) {
                assert_eq!(own.name, all.name);
                let part = slice(floats(&all.value), &part_of(&own.name, &shape), rank, tensor as usize);
                ops.write(&mut own.value, &part).unwrap();
            }
            ranks.push(layer);
        }
        Group { ops, ranks }
    }

    fn each(&mut self, f: impl Fn(&mut Reference, &mut Layer<Reference>)) {
        self.ranks.iter_mut().for_each(|rank| f(&mut self.ops, rank));
    }

    /// Every rank's tensor becomes the sum over ranks; `bias` was added by each but counts once.
    fn all_reduce(&mut self, bias: Option<&str>, tensor: impl Fn(&mut Block<ReferenceBuffer>) -> &mut ReferenceBuffer) {
        let mut sum = vec![0.0; floats(tensor(&mut self.ranks[0].block)).len()];
        for rank in &mut self.ranks {
            sum.iter_mut().zip(floats(tensor(&mut rank.block))).for_each(|(s, v)| *s += v);
        }
        if let Some(name) = bias {
            let extra = (self.ranks.len() - 1) as f64;
            let bias = self.ranks[0].parameters().into_iter().find(|p| p.name == name).unwrap();
            let bias = floats(&bias.value);
            sum.iter_mut().enumerate().for_each(|(i, s)| *s -= extra * bias[i % bias.len()]);
        }
        for rank in &mut self.ranks {
            self.ops.write(tensor(&mut rank.block), &sum).unwrap();
        }
    }

    fn forward_and_backward(&mut self) {
        self.each(|ops, l| l.block.attention_half(ops, &l.x));
        self.all_reduce(Some("projection.bias"), |b| &mut b.kept.projection);
        self.each(|ops, l| l.block.join_attention(ops, &l.x));
        self.each(|ops, l| l.block.mlp_half(ops));
        self.all_reduce(Some("fc2.bias"), |b| &mut b.kept.fc2);
        self.each(|ops, l| l.block.join_mlp(ops));
        self.each(|ops, l| l.block.mlp_half_backward(ops, &l.dy));
        self.all_reduce(None, |b| &mut b.flow.ln2);
        self.each(|ops, l| l.block.join_mlp_backward(ops, &l.dy));
        self.each(|ops, l| l.block.attention_half_backward(ops));
        self.all_reduce(None, |b| &mut b.flow.ln1);
        self.each(|ops, l| l.block.join_attention_backward(ops, &l.x));
        self.each(|ops, l| l.backward_weight(ops));
        self.ops.synchronize().unwrap();
    }
}

#[test]
fn shards_add_up_to_the_whole_layer() {
    let mut random = SplitMix(44);
    for tensor in [1u64, 2, 3, 4] {
        let shape = random_shape(&mut random, tensor).tensor(1);
        let mut ops = Reference::new();
        let mut whole = Layer::new(&mut ops, shape, 8).unwrap();
        let mut group = Group::new(&whole, tensor);
        whole.run(&mut ops, Phase::ForwardBackward);
        group.forward_and_backward();
        for (rank, layer) in group.ranks.iter().enumerate() {
            for ((name, is), (_, want)) in layer.results().into_iter().zip(whole.results()) {
                let want = slice(floats(want), &part_of(name, &shape), rank, tensor as usize);
                close(&format!("{name} of rank {rank} of {tensor}"), floats(is), &want);
            }
        }
    }
}
