//! How load is spread over priorities: Envoy's integer formulas (`LoadBalancerBase::recalculatePerPriorityState`,
//! `recalculatePerPriorityPanic`, `recalculateLoadInTotalPanic`).
//!
//! Envoy's documentation shows a panic table that contradicts its code ((50, 60) as 50/50); the code is what holds here.

/// Endpoints of one priority, counted, or their weights summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierHealth {
    pub total: u64,
    pub healthy: u64,
    pub degraded: u64,
}

/// Percent of the load for each priority; healthy and degraded together sum to 100.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriorityLoads {
    pub healthy: Vec<u32>,
    pub degraded: Vec<u32>,
    /// The priority uses all of its endpoints, healthy or not.
    pub panic: Vec<bool>,
}

/// Loads for tiers in order of priority. `overprovisioning` in percent (140), `panic_threshold` in percent, 0 for never.
pub fn priority_loads(tiers: &[TierHealth], overprovisioning: u32, panic_threshold: f64) -> PriorityLoads {
    let availability = |part: u64, total: u64| match total {
        0 => 0,
        total => (u128::from(overprovisioning) * u128::from(part) / u128::from(total)).min(100) as u32,
    };
    let healthy: Vec<u32> = tiers.iter().map(|tier| availability(tier.healthy, tier.total)).collect();
    let degraded: Vec<u32> = tiers.iter().map(|tier| availability(tier.degraded, tier.total)).collect();
    let normalized = healthy.iter().chain(&degraded).sum::<u32>().min(100);

    let mut loads = PriorityLoads {
        healthy: vec![0; tiers.len()],
        degraded: vec![0; tiers.len()],
        panic: vec![false; tiers.len()],
    };
    if normalized > 0 {
        let mut left = 100;
        spread(&mut loads.healthy, &healthy, &mut left, normalized);
        spread(&mut loads.degraded, &degraded, &mut left, normalized);
        // What rounding left over goes to the first that takes anything.
        if let Some(first) = healthy.iter().position(|health| *health > 0) {
            loads.healthy[first] += left;
        } else if let Some(first) = degraded.iter().position(|health| *health > 0) {
            loads.degraded[first] += left;
        }
    }
    if panic_threshold <= 0.0 {
        return loads;
    }
    if normalized < 100 {
        for (panic, tier) in loads.panic.iter_mut().zip(tiers) {
            *panic = usable_percent(tier) < panic_threshold.min(100.0);
        }
    }
    if !tiers.is_empty() && loads.panic.iter().all(|panic| *panic) {
        total_panic(&mut loads, tiers);
    }
    loads
}

fn spread(loads: &mut [u32], availability: &[u32], left: &mut u32, normalized: u32) {
    for (load, available) in loads.iter_mut().zip(availability) {
        *load = (available * 100 / normalized).min(*left);
        *left -= *load;
    }
}

fn usable_percent(tier: &TierHealth) -> f64 {
    match tier.total {
        0 => 0.0,
        total => 100.0 * (tier.healthy + tier.degraded) as f64 / total as f64,
    }
}

/// Every priority panics: load by number of endpoints.
fn total_panic(loads: &mut PriorityLoads, tiers: &[TierHealth]) {
    let all: u64 = tiers.iter().map(|tier| tier.total).sum();
    let Some(first) = tiers.iter().position(|tier| tier.total > 0) else { return };
    let mut left = 100;
    for (index, tier) in tiers.iter().enumerate() {
        loads.healthy[index] = (100 * tier.total / all) as u32;
        loads.degraded[index] = 0;
        left -= loads.healthy[index];
    }
    loads.healthy[first] += left;
}
